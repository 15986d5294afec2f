import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readUmt5Tokenizer, umt5TokenizerFromModel } from '../../src/tokenizer/umt5.js';
import { tempFolder } from '../support/temp-folder.js';

const fixtures = fileURLToPath(new URL('../fixtures', import.meta.url));
const folder = join(fixtures, 'goldens', 'wan-tiny', 'model-configs', 'tokenizer');

interface Json {
  normalizer: unknown;
  pre_tokenizer: unknown;
  post_processor: unknown;
  added_tokens: Record<string, unknown>[];
  model: Record<string, unknown>;
}

async function readJson(): Promise<Json> {
  return JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8'));
}

/** The golden tokenizer.json with changes. */
async function changed(change: (json: Json) => void): Promise<string> {
  const json = await readJson();
  change(json);
  const path = join(await tempFolder(), 'tokenizer.json');
  await writeFile(path, JSON.stringify(json));
  return path;
}

/** The charsmap as the spiece.model has it: its second normaliser field, after the name "nmt_nfkc". */
async function charsmap(): Promise<string> {
  const bytes = await readFile(join(folder, 'spiece.model'));
  const at = bytes.indexOf('nmt_nfkc') + 'nmt_nfkc'.length;
  const length =
    ((bytes[at + 1] ?? 0) % 128) | (((bytes[at + 2] ?? 0) % 128) << 7) | (((bytes[at + 3] ?? 0) % 128) << 14);
  return bytes.subarray(at + 4, at + 4 + length).toString('base64');
}

const asConverted = (map: string) => (json: Json) => {
  json.model.byte_fallback = true;
  json.normalizer = {
    type: 'Sequence',
    normalizers: [
      { type: 'Precompiled', precompiled_charsmap: map },
      { type: 'Strip', strip_left: false, strip_right: true },
      { type: 'Replace', pattern: { Regex: ' {2,}' }, content: '▁' },
    ],
  };
  json.pre_tokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first' };
};

const ids = async (path: string, text: string) => [...(await readUmt5Tokenizer(path)).encode(text).ids];

// Made by test/fixtures/tokenizers/umt5_awkward.py, which says how.
describe('awkward strings have the ids of the reference', async () => {
  const { cases } = JSON.parse(await readFile(join(fixtures, 'tokenizers', 'umt5_awkward.json'), 'utf8')) as {
    cases: Record<string, string | number[]>[];
  };
  const variants: readonly (readonly [string, () => Promise<string>])[] = [
    ['written', async () => folder],
    ['bytes', () => changed((json) => Object.assign(json.model, { byte_fallback: true }))],
    ['converted', async () => changed(asConverted(await charsmap()))],
    ['model', async () => join(folder, 'spiece.model')],
  ];
  it.each(variants)('%s', async (name, locate) => {
    const tokenizer = await readUmt5Tokenizer(await locate(), { maxLength: 10_000 });
    const ours = cases
      .filter((entry) => name in entry)
      .map(({ text }) => ({ text, [name]: [...tokenizer.encode(String(text)).ids] }));
    expect(ours.length).toBeGreaterThan(150);
    expect(ours).toEqual(
      cases.filter((entry) => name in entry).map((entry) => ({ text: entry.text, [name]: entry[name] })),
    );
  });
});

describe('readUmt5Tokenizer', () => {
  it('gives the same ids from tokenizer.json and from spiece.model, where both spell by bytes and normalise nothing', async () => {
    const json = await readUmt5Tokenizer(await changed(({ model }) => Object.assign(model, { byte_fallback: true })));
    const model = await readUmt5Tokenizer(join(folder, 'spiece.model'));
    const bytes = umt5TokenizerFromModel(await readFile(join(folder, 'spiece.model')));
    for (const text of ['', 'a red circle', 'a 🦊 on a cliff', 'deux écoles', 'a</s>b', '色', '  two  spaces  ']) {
      expect(model.encode(text), text).toEqual(json.encode(text));
      expect(bytes.encode(text), text).toEqual(json.encode(text));
    }
  });

  it('prefers tokenizer.json, as the reference does', async () => {
    expect(await ids(folder, '色')).toEqual([285, 2, 1]);
    expect(await ids(join(folder, 'spiece.model'), '色')).toEqual([285, 235, 140, 181, 1]);
  });

  it('spells the pieces of its ids', async () => {
    const tokenizer = await readUmt5Tokenizer(folder);
    expect(tokenizer.tokenize('a red').map((id) => tokenizer.piece(id))).toEqual(['▁a', '▁red']);
    expect(tokenizer.piece(1e6)).toBe('');
  });

  it.each([
    [511, 512, 512],
    [512, 512, 513],
    [6000, 512, 6001],
  ])('keeps 512 of %i tokens and the end', async (words, kept, length) => {
    const tokens = (await readUmt5Tokenizer(folder)).encode('red '.repeat(words));
    expect(tokens.ids).toHaveLength(kept);
    expect(tokens.ids.at(-1)).toBe(1);
    expect(tokens.length).toBe(length);
  });

  it('reads half a surrogate pair as a replacement character', async () => {
    expect(await ids(join(folder, 'spiece.model'), 'a\ud800b')).toEqual(
      await ids(join(folder, 'spiece.model'), 'a\ufffdb'),
    );
  });

  it.each(['', null])('leaves text as it is where the charsmap is %j', async (map) => {
    const path = await changed((json) => {
      json.normalizer = { type: 'Precompiled', precompiled_charsmap: map };
    });
    expect(await ids(path, 'a red')).toEqual([259, 268, 1]);
  });

  it('appends the end token where the file says nothing of it', async () => {
    expect(await ids(await changed((json) => Object.assign(json, { post_processor: null })), 'a red')).toEqual([
      259, 268, 1,
    ]);
  });

  it('finds special tokens with the white space and the word bounds that they ask for', async () => {
    const path = await changed(({ added_tokens: tokens }) => {
      Object.assign(tokens[1] ?? {}, { lstrip: true, rstrip: true });
      tokens.push({ ...tokens[0], id: 449, content: 'zz', single_word: true });
      tokens.push({ ...tokens[0], id: 450, content: 'RED', normalized: true });
    });
    // As tokenizers 0.23.2 says.
    expect(await ids(path, 'a  </s>  a')).toEqual([259, 1, 259, 1]);
    expect(await ids(path, 'a zz a')).toEqual([259, 449, 259, 1]);
    expect(await ids(path, 'azz')).toEqual([259, 2, 1]);
    expect(await ids(path, 'azz-zz')).toEqual([259, 2, 314, 449, 1]);
    expect(await ids(path, 'a RED a')).toEqual([259, 450, 259, 1]);
  });
});

describe('readUmt5Tokenizer refuses', () => {
  const cases: readonly [string, (json: Json) => void, string][] = [
    [
      'another kind of model',
      ({ model }) => Object.assign(model, { type: 'BPE' }),
      'model.type: is of another kind than Unigram',
    ],
    [
      'an unknown piece that is none',
      ({ model }) => Object.assign(model, { unk_id: 449 }),
      'names piece 449 as unknown, it has 449',
    ],
    [
      'a normaliser that is not known',
      (json) => Object.assign(json, { normalizer: { type: 'Nmt' } }),
      'normalizer: Invalid input',
    ],
    [
      'a pattern that may never end',
      (json) => Object.assign(json, { normalizer: { type: 'Replace', pattern: { Regex: '(a+)+$' }, content: '' } }),
      'normalizer',
    ],
    [
      'a charsmap that is none',
      (json) => Object.assign(json, { normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } }),
      'a charsmap of 3 bytes cannot hold a trie of 0',
    ],
    [
      'a piece of 257 characters',
      ({ model }) => Object.assign(model, { vocab: [['x'.repeat(257), 0]] }),
      'model.vocab.0: must be a piece of at most 256 characters and its score',
    ],
    [
      'a score that is no number',
      ({ model }) => Object.assign(model, { vocab: [['x', null]] }),
      'model.vocab.0: must be a piece of at most 256 characters and its score',
    ],
  ];
  it.each(cases)('%s', async (_, change, message) => {
    const path = await changed(change);
    await expect(readUmt5Tokenizer(path)).rejects.toMatchObject({ reason: 'CHECKPOINT_INVALID' });
    await expect(readUmt5Tokenizer(path)).rejects.toThrow(message);
    await expect(readUmt5Tokenizer(path)).rejects.toThrow(path);
  });

  it.each([
    ['an empty file', '', 'has no unknown piece'],
    ['text', 'hello', 'is no SentencePiece model: '],
    [
      'a piece that ends outside the file',
      '\x0a\x7f\x0a\x01a',
      'is no SentencePiece model: a message ends outside the file',
    ],
    [
      'a piece without text',
      '\x0a\x02\x18\x01',
      'is no SentencePiece model: piece 0 has no kind, text of 1 to 256 characters and finite score',
    ],
    ['a byte-pair model', '\x0a\x05\x0a\x01a\x18\x02\x12\x02\x18\x02', 'is of model type 2, not unigram (1)'],
    ['a model without pieces', '\x0a\x05\x0a\x01a\x18\x02', 'has no pieces'],
  ])('%s as spiece.model', async (_, content, message) => {
    const path = join(await tempFolder(), 'spiece.model');
    await writeFile(path, content, 'latin1');
    await expect(readUmt5Tokenizer(path)).rejects.toThrow(`${path} ${message}`);
  });

  it('a folder without either file', async () => {
    const path = await tempFolder();
    await expect(readUmt5Tokenizer(path)).rejects.toThrow(`${path} has neither tokenizer.json nor spiece.model`);
  });

  it('no charsmap, however hostile: it ends, and matches what it will', async () => {
    const hostile = Buffer.alloc(4 + 4 * 1024);
    hostile.writeUInt32LE(4 * 1024);
    // Every unit has a byte for its label, a leaf, and an offset that leads somewhere else.
    for (let i = 0; i < 1024; i += 1) {
      hostile.writeUInt32LE(((Math.imul(i, 0x9e3779b1) & 0x7fffff00) | 0x100 | (i % 256)) >>> 0, 4 + 4 * i);
    }
    const path = await changed((json) =>
      Object.assign(json, { normalizer: { type: 'Precompiled', precompiled_charsmap: hostile.toString('base64') } }),
    );
    expect((await ids(path, 'a red circle 色 🦊')).at(-1)).toBe(1);
  });
});
