import { cp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readClipTokenizer } from '../../src/tokenizer/clip.js';
import { tempFolder } from '../support/temp-folder.js';

const configs = fileURLToPath(new URL('../fixtures/goldens/sdxl-tiny/model-configs', import.meta.url));
const [BEGIN, END] = [857, 858];

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

  it('reads special tokens that are written in the text', async () => {
    const tokenizer = await readClipTokenizer(join(configs, 'tokenizer'));
    expect(tokenizer.tokenize('red<|endoftext|>red')).toEqual([573, END, 573]);
  });

  it('merges a word of 16 KB', async () => {
    const tokenizer = await readClipTokenizer(join(configs, 'tokenizer'));
    const text = 'background'.repeat(1600);
    const pieces = tokenizer.tokenize(text);
    expect(pieces.length).toBeGreaterThan(1000);
    expect(pieces.length).toBeLessThan(16_000);
  });

  it.each([
    ['vocab.json', undefined, /vocab.json is missing; a CLIP tokenizer folder has vocab.json and merges.txt/],
    ['merges.txt', undefined, /merges.txt is missing/],
    ['vocab.json', '[1]', /vocab.json .*expected record/],
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
