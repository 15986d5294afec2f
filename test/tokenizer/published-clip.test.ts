import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { PUBLISHED_CLIP_TOKENS, readPublishedClip } from '../../src/tokenizer/published-clip.js';

interface Case {
  readonly text: string;
  /** Without the padding. */
  readonly ids: readonly number[];
  /** Tokens before the text was cut off. */
  readonly length: number;
}

/** Ids of `CLIPTokenizer.from_pretrained` (transformers 5.18) with the vocabulary of openai/CLIP. */
const fixture = new URL('../fixtures/tokenizers/published_clip.json', import.meta.url);
const cases = JSON.parse(await readFile(fixture, 'utf8')) as readonly Case[];
const MAX_LENGTH = 77;

describe('readPublishedClip', () => {
  it('has the ids of transformers for 150 strings', async () => {
    const tokenizer = await readPublishedClip();
    expect(cases).toHaveLength(150);
    for (const { text, ids, length } of cases) {
      const padding = Array<number>(MAX_LENGTH - ids.length).fill(tokenizer.end);
      expect(tokenizer.encode(text), text).toEqual({ ids: Int32Array.of(...ids, ...padding), length });
    }
  });

  it('spells its first and last tokens', async () => {
    const { begin, end, pad, piece } = await readPublishedClip();
    expect([begin, end, pad]).toEqual([
      PUBLISHED_CLIP_TOKENS - 2,
      PUBLISHED_CLIP_TOKENS - 1,
      PUBLISHED_CLIP_TOKENS - 1,
    ]);
    expect([0, 256, 320, 49_405, begin, end, PUBLISHED_CLIP_TOKENS].map(piece)).toEqual([
      '!',
      '!</w>',
      'a</w>',
      'jekyll</w>',
      '<|startoftext|>',
      '<|endoftext|>',
      '',
    ]);
  });

  it('pads with "!" as the second text encoder of SDXL does', async () => {
    const tokenizer = await readPublishedClip({ padId: 0 });
    const { ids } = tokenizer.encode('a cat');
    expect([...ids.slice(0, 6)]).toEqual([tokenizer.begin, 320, 2368, tokenizer.end, 0, 0]);
    // Written alone it is the padding token itself, as in the reference; without it a word's end.
    expect(tokenizer.tokenize('!')).toEqual([0]);
    expect((await readPublishedClip()).tokenize('!')).toEqual([256]);
  });
});
