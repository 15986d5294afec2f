import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readClipTokenizer } from '../../src/tokenizer/clip.js';
import { tempFolder } from '../support/temp-folder.js';

const configs = fileURLToPath(new URL('../fixtures/goldens/sdxl-tiny/model-configs', import.meta.url));
const [BEGIN, END] = [857, 858];

/** Writes a folder as transformers 5 does: tokenizer.json, and its configuration. */
async function asTransformers5(
  from: string,
  to: string,
  { configured, pairs = false }: { readonly configured: boolean; readonly pairs?: boolean },
): Promise<object> {
  await mkdir(to);
  const vocab = JSON.parse(await readFile(join(from, 'vocab.json'), 'utf8')) as Record<string, number>;
  const merges = (await readFile(join(from, 'merges.txt'), 'utf8'))
    .split('\n')
    .filter((line) => / /.test(line) && !/^#/.test(line));
  const config = JSON.parse(await readFile(join(from, 'tokenizer_config.json'), 'utf8')) as Record<string, string>;
  const [bos = '', eos = '', pad = ''] = [config.bos_token, config.eos_token, config.pad_token];
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [...new Set([pad, bos, eos])].map((content) => ({
      id: vocab[content],
      content,
      special: true,
      normalized: false,
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {
          type: 'Split',
          pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
          behavior: 'Removed',
          invert: true,
        },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: { type: 'RobertaProcessing', sep: [eos, vocab[eos]], cls: [bos, vocab[bos]], trim_offsets: false },
    model: {
      type: 'BPE',
      unk_token: eos,
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      vocab,
      merges: pairs ? merges.map((merge) => merge.split(' ')) : merges,
    },
  };
  await writeFile(join(to, 'tokenizer.json'), JSON.stringify(json));
  if (configured) await cp(join(from, 'tokenizer_config.json'), join(to, 'tokenizer_config.json'));
  return json;
}

// Ids of whole prompts, from transformers, are checked in test/conformance.
describe('ClipTokenizer', () => {
  it.each([
    ['lower-cases and joins white space', '  A  Red\n\tCIRCLE ', 'a red circle'],
    ['composes characters', 'e\u0301', '\u00e9'],
    ['takes digits one by one', '12', '1 2'],
    ['splits contractions from their word', "cat's", "cat 's"],
  ])('%s', async (_, text, same) => {
    const tokenizer = await readClipTokenizer(join(configs, 'tokenizer'));
    expect(tokenizer.tokenize(text)).toEqual(tokenizer.tokenize(same));
    expect(tokenizer.tokenize(text).length).toBeGreaterThan(0);
  });

  it('keeps the end when it cuts, and tells the whole length', async () => {
    const tokenizer = await readClipTokenizer(join(configs, 'tokenizer'));
    const { ids, length } = tokenizer.encode('red '.repeat(200));
    expect([ids.length, ids[0], ids[75], ids[76], length]).toEqual([77, BEGIN, 573, END, 202]);
  });

  it('pads the second encoder with its own token', async () => {
    const [first, second] = [
      await readClipTokenizer(join(configs, 'tokenizer')),
      await readClipTokenizer(join(configs, 'tokenizer_2')),
    ];
    expect([first.encode('').ids[2], second.encode('').ids[2]]).toEqual([END, 0]);
  });

  // transformers 5.18: CLIPTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids
  it.each([
    ['tokenizer', 'red<|endoftext|>red', [573, END, 573]],
    ['tokenizer', 'red!', [573, 256]],
    ['tokenizer_2', 'red!', [573, 0]],
    ['tokenizer_2', 'a!b !! c', [320, 0, 321, 0, 0, 322]],
    ['tokenizer', '<|ENDOFTEXT|>', [27, 347, 68, 77, 67, 78, 69, 83, 68, 87, 339, 91, 285]],
    ['tokenizer', 'a\u0085b', [320, 321]],
    ['tokenizer', 'a\ufeffb', [320, 171, 119, 379, 321]],
    ['tokenizer', '\u03a3\u0391\u03a3', [139, 225, 138, 109, 139, 481]],
  ])('%s reads %j as the reference does', async (folder, text, ids) => {
    expect((await readClipTokenizer(join(configs, folder))).tokenize(text)).toEqual(ids);
  });

  // As stabilityai/stable-diffusion-xl-base-1.0 ships them: "normalized" tokens are found in the lower-cased text.
  it.each([
    ['special_tokens_map.json', { eos_token: { content: '<|endoftext|>', normalized: true } }],
    [
      'tokenizer_config.json',
      {
        eos_token: '<|endoftext|>',
        added_tokens_decoder: { '858': { content: '<|endoftext|>', normalized: true, special: true } },
      },
    ],
  ])('reads a special token of any case where %s says so', async (name, content) => {
    const folder = join(await tempFolder(), 'tokenizer');
    await cp(join(configs, 'tokenizer'), folder, { recursive: true });
    await writeFile(join(folder, name), JSON.stringify(content));
    expect((await readClipTokenizer(folder)).tokenize('red<|EndOfText|>')).toEqual([573, END]);
  });

  it.each([
    ['the map', {}, 0],
    ['a configuration that lists its tokens', { added_tokens_decoder: {} }, END],
  ])('takes the padding from %s', async (_, more, padding) => {
    const folder = join(await tempFolder(), 'tokenizer');
    await cp(join(configs, 'tokenizer'), folder, { recursive: true });
    await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ pad_token: '<|endoftext|>', ...more }));
    await writeFile(join(folder, 'special_tokens_map.json'), JSON.stringify({ pad_token: '!' }));
    expect((await readClipTokenizer(folder)).encode('').ids[2]).toBe(padding);
  });

  it.each([
    ['tokenizer', { configured: true }, {}],
    ['tokenizer_2', { configured: true }, {}],
    ['tokenizer', { configured: false }, {}],
    ['tokenizer_2', { configured: false }, {}],
    ['tokenizer', { configured: true }, { pairs: true }],
  ] as const)('reads %s from tokenizer.json alone %j', async (name, { configured }, form) => {
    const folder = join(await tempFolder(), 'tokenizer');
    await asTransformers5(join(configs, name), folder, { configured, ...form });
    const [saved, files] = [await readClipTokenizer(folder), await readClipTokenizer(join(configs, name))];
    for (const text of [
      '',
      'a red circle!',
      "cat's 12",
      'red<|endoftext|>red',
      '<|ENDOFTEXT|>',
      'a\u0085b',
      '\u03a3\u0391\u03a3',
    ])
      expect(saved.encode(text), text).toEqual(files.encode(text));
  });

  it.each([
    [{ model: { type: 'WordPiece' } }, /model\.type: is of another kind than BPE/],
    [{ pre_tokenizer: { type: 'Whitespace' } }, /pre_tokenizer\.type: must be Sequence/],
    [{ normalizer: { type: 'Sequence', normalizers: [{ type: 'NFKC' }] } }, /is not how CLIP normalises/],
  ])('refuses a tokenizer.json of another kind: %j', async (change, message) => {
    const folder = join(await tempFolder(), 'tokenizer');
    const json = await asTransformers5(join(configs, 'tokenizer'), folder, { configured: true });
    await writeFile(join(folder, 'tokenizer.json'), JSON.stringify({ ...json, ...change }));
    await expect(readClipTokenizer(folder)).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message) as string,
    });
  });

  it('merges a word of 16 KB', async () => {
    const tokenizer = await readClipTokenizer(join(configs, 'tokenizer'));
    const text = 'background'.repeat(1600);
    const pieces = tokenizer.tokenize(text);
    expect(pieces.length).toBeGreaterThan(1000);
    expect(pieces.length).toBeLessThan(16_000);
  });

  it.each([
    [
      'vocab.json',
      undefined,
      /vocab.json is missing; a CLIP tokenizer folder has vocab.json and merges.txt, or tokenizer.json/,
    ],
    ['merges.txt', undefined, /merges.txt is missing/],
    ['vocab.json', '[1]', /vocab.json .*must be an object of at most 400000 ids by their tokens/],
    ['vocab.json', '{"a":1}', /vocab.json has no eos_token "<\|endoftext\|>"/],
    ['merges.txt', 'a b c', /merges.txt has a line that is not two symbols: "a b c"/],
    ['tokenizer_config.json', '{"model_max_length":1}', /tokenizer_config.json model_max_length: /],
  ])('refuses a folder with a bad %s', async (name, content, message) => {
    const folder = join(await tempFolder(), 'tokenizer');
    await cp(join(configs, 'tokenizer'), folder, { recursive: true });
    if (content === undefined) await rm(join(folder, name));
    else await writeFile(join(folder, name), content);
    await expect(readClipTokenizer(folder)).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });
});
