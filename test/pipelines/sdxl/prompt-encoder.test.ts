import { appendFile, cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { PromptSyntax } from '../../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import type { PromptCache } from '../../../src/pipelines/sdxl/prompt/prompt-cache.js';
import { chunkText } from '../../../src/pipelines/sdxl/prompt/prompt-chunks.js';
import { chunkRows } from '../../../src/pipelines/sdxl/prompt/prompt-conditioning.js';
import type { PromptEmbeds } from '../../../src/pipelines/sdxl/prompt/prompt-encoder.js';
import { describePrompt } from '../../../src/pipelines/sdxl/prompt/tokenize.js';
import { readClipTokenizer } from '../../../src/tokenizer/clip.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { tempFolder } from '../../support/temp-folder.js';

/** States of the tiny model's first text encoder. */
const FIRST_WIDTH = 32;
const goldens = fileURLToPath(new URL('../../fixtures/goldens/sdxl-tiny', import.meta.url));
const tokenizers = [
  await readClipTokenizer(join(goldens, 'model-configs', 'tokenizer')),
  await readClipTokenizer(join(goldens, 'model-configs', 'tokenizer_2')),
];
const [tokenizer] = tokenizers;
if (tokenizer === undefined) throw new Error('no tokenizer');

/** The contract's example of a prompt that a plain call cuts: fifteen weighted phrases. */
const { cases } = JSON.parse(await readFile(join(goldens, 'compel_cases.json'), 'utf8')) as {
  cases: { prompt: string; key: string }[];
};
const overlong = cases.find(({ key }) => key === 'c4')?.prompt ?? '';

let pipeline: SdxlPipeline;
beforeAll(async () => {
  pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(() => pipeline.dispose());

function encode(prompt: string, syntax: PromptSyntax): Promise<PromptEmbeds> {
  return pipeline.networks.prompts.encode(prompt, syntax);
}

/** Rows of the embeddings, from one chunk to another. */
function chunk({ embeds, tokens, report }: PromptEmbeds, from: number, to = from + 1): Float32Array {
  const size = (embeds.length / tokens) * (tokens / report.chunks);
  return embeds.slice(from * size, to * size);
}

async function copyOfTiny(): Promise<string> {
  const folder = join(await tempFolder(), 'sdxl');
  await cp(inject('wholeSdxl'), folder, { recursive: true });
  return folder;
}

/** Changes fields of a JSON file. */
async function change(path: string, fields: object): Promise<void> {
  const content = JSON.parse(await readFile(path, 'utf8')) as object;
  await writeFile(path, JSON.stringify({ ...content, ...fields }));
}

async function withPrompts(path: string, use: (prompts: PromptCache) => Promise<void>): Promise<void> {
  const opened = await createSdxlPipeline({ path, backend: cpuBackend });
  try {
    await use(opened.networks.prompts);
  } finally {
    await opened.dispose();
  }
}

const red = (count: number) => 'red '.repeat(count);

describe('chunkText', () => {
  it.each([
    ['one chunk where it fits', red(75), [75]],
    ['the last word', red(76), [75, 1]],
    ['the last phrase', `${red(40)}, ${red(20)}; ${red(30)}`, [62, 30]],
    ['the last sentence, however short', `red. ${red(40)}, ${red(50)}`, [2, 41, 50]],
    ['nowhere else than the room ends in a word too long', '1'.repeat(80), [75, 5]],
    ['one empty chunk of nothing', '', [0]],
  ])('cuts at %s', (_, text, lengths) => {
    const { chunks } = chunkText(tokenizer, [{ text, weight: 1 }], 64);
    expect(chunks.map(({ ids }) => ids.indexOf(tokenizer.end) - 1)).toEqual(lengths);
    expect(chunks.every(({ ids }) => ids.length === 77 && ids[0] === tokenizer.begin)).toBe(true);
  });

  it('gives every token the weight of its fragment, and the rest 1', () => {
    const fragments = [
      { text: 'a red', weight: 1 },
      { text: 'circle on', weight: 1.5 },
    ];
    const { chunks, counts } = chunkText(tokenizer, fragments, 64);
    const [a = 0, b = 0] = counts;
    const expected = [...new Array(1 + a).fill(1), ...new Array(b).fill(1.5), ...new Array(76 - a - b).fill(1)];
    expect([...(chunks[0]?.weights ?? [])]).toEqual(expected);
  });

  it('counts tokens beyond the last chunk', () => {
    const { chunks, dropped } = chunkText(tokenizer, [{ text: red(151), weight: 1 }], 2);
    expect([chunks.length, dropped]).toEqual([2, 1]);
  });
});

describe('chunkRows', () => {
  const row = { ids: new Int32Array(6), weights: new Float32Array(6).fill(1) };
  const rest = { counts: [], dropped: 0 };

  it('hides a fragment over two chunks from its first token to its last, except the first and last positions of a chunk', () => {
    const rows = chunkRows({ chunks: [row, row, row], lowered: [{ weight: 0.5, from: 3, to: 8 }], ...rest });
    expect(rows.map(({ without }) => without.map((other) => other.row.hidden))).toEqual([[[3, 4]], [[1, 2]], []]);
  });

  it.each([
    [0.5, 0.5],
    [0.8, 0.24524],
    [0, 0.99998],
  ])('weighs the text without a phrase of weight %d with %d', (weight, share) => {
    const [first] = chunkRows({ chunks: [row], lowered: [{ weight, from: 1, to: 2 }], ...rest });
    expect(first?.without[0]?.share).toBeCloseTo(share, 4);
  });
});

describe('PromptEncoder', () => {
  it('encodes up to 75 tokens the same way, diffusers or plain', async () => {
    const [diffusers, plain] = [await encode(red(75), 'diffusers'), await encode(red(75), 'plain')];
    expect(plain).toEqual(diffusers);
    expect(plain.report).toEqual({ chunks: 1, tokens: 75, dropped: 0, strategy: 'none' });
  });

  it('continues after 75 tokens, where diffusers cuts', async () => {
    const [diffusers, plain] = [await encode(red(76), 'diffusers'), await encode(red(76), 'plain')];
    expect(diffusers.report).toEqual({ chunks: 1, tokens: 76, dropped: 1, strategy: 'none' });
    expect(plain.report).toEqual({ chunks: 2, tokens: 76, dropped: 0, strategy: 'none' });
    expect(plain.tokens).toBe(154);
    expect(chunk(plain, 0)).toEqual(diffusers.embeds);
    expect(chunk(plain, 1)).toEqual((await encode('red', 'plain')).embeds);
    expect(plain.pooled).toEqual(diffusers.pooled);
  });

  it('reads the signs of a plain prompt as text', async () => {
    const [plain, weighted] = [
      await encode('a (red:1.3) circle', 'plain'),
      await encode('a (red:1.3) circle', 'weighted'),
    ];
    expect(plain.report.tokens).toBeGreaterThan(weighted.report.tokens);
    expect(plain.embeds).not.toEqual(weighted.embeds);
  });

  it('encodes a prompt without signs the same way, plain or weighted', async () => {
    const [plain, weighted] = [await encode('a red circle', 'plain'), await encode('a red circle', 'weighted')];
    expect(weighted).toEqual(plain);
    expect(weighted.report.strategy).toBe('none');
  });

  it('encodes a prompt that cannot be parsed as plain, and reports why', async () => {
    const [plain, weighted] = [await encode('a (red circle', 'plain'), await encode('a (red circle', 'weighted')];
    expect({ ...weighted, report: plain.report }).toEqual(plain);
    expect(weighted.report).toEqual({
      ...plain.report,
      strategy: 'fallback',
      problem: 'character 3: "(" is never closed; close it, or write \\( for the sign itself',
    });
  });

  it('leaves embeddings alone at weight 1', async () => {
    const [weighted, plain] = [await encode('a (red:1) circle', 'weighted'), await encode('a red circle', 'plain')];
    expect(weighted.embeds).toEqual(plain.embeds);
    expect(weighted.report.strategy).toBe('compel');
  });

  it('keeps all of a long prompt with many weights', async () => {
    const { report } = await encode(overlong, 'weighted');
    expect(report).toMatchObject({ chunks: 1, dropped: 0, strategy: 'compel' });
    expect((await encode(overlong, 'diffusers')).report.dropped).toBeGreaterThan(0);
  });

  it('puts the prompts of .and() one after the other, each by its weight', async () => {
    const both = await encode('("a red circle", "a green star").and(1, 0)', 'weighted');
    expect(both.tokens).toBe(154);
    expect(chunk(both, 0)).toEqual((await encode('a red circle', 'plain')).embeds);
    expect(chunk(both, 1)).toEqual((await encode('', 'plain')).embeds);
  });

  it('blends prompts of unequal length, the shorter padded with the empty one', async () => {
    const blend = await encode(`("${red(76)}", "a green star").blend(0, 1)`, 'weighted');
    const star = await encode('a green star', 'plain');
    expect(chunk(blend, 0)).toEqual(star.embeds);
    expect(chunk(blend, 1)).toEqual((await encode('', 'plain')).embeds);
    expect(blend.pooled).toEqual(star.pooled);
  });

  it('pads embeddings to the length of the longest with the empty prompt', async () => {
    const unequal = [await encode(red(160), 'weighted'), await encode('blurry', 'weighted')];
    const [long, short] = await pipeline.networks.prompts.encoder.padToSameLength(unequal);
    expect([long?.tokens, short?.tokens, short?.embeds.length]).toEqual([231, 231, long?.embeds.length]);
    const empty = (await encode('', 'plain')).embeds;
    const blurry = (await encode('blurry', 'plain')).embeds;
    expect(short?.embeds).toEqual(Float32Array.of(...blurry, ...empty, ...empty));
  });

  it('serves tokenizers that stop short of the encoders', async () => {
    const folder = await copyOfTiny();
    for (const name of ['tokenizer', 'tokenizer_2']) {
      await change(join(folder, name, 'tokenizer_config.json'), { model_max_length: 16 });
    }
    await withPrompts(folder, async (small) => {
      const [short, full] = [await small.encode('a red circle', 'weighted'), await encode('a red circle', 'weighted')];
      expect(short.tokens).toBe(16);
      expect(short.embeds).toEqual(full.embeds.slice(0, short.embeds.length));
      expect(short.pooled).toEqual(full.pooled);
      expect((await small.encode(red(20), 'weighted')).report.chunks).toBe(2);
    });
  });

  it.each([
    [{ tokenizer: 78 }, 'model_max_length 78 of a tokenizer must be <= 77, what both text encoders take'],
    [{ tokenizer: 16 }, 'model_max_length 77 of a tokenizer must be <= 16, what both text encoders take'],
  ])('refuses tokenizers that do not fit: %j', async (lengths, message) => {
    const folder = await copyOfTiny();
    for (const [name, length] of Object.entries(lengths)) {
      await change(join(folder, name, 'tokenizer_config.json'), { model_max_length: length });
    }
    await expect(createSdxlPipeline({ path: folder, backend: cpuBackend })).rejects.toThrow(message);
  });

  // In the released vocabulary "!!" is one token to the first encoder and two to the second, whose padding is "!".
  it('pads the encoder that needs fewer chunks with the empty prompt', async () => {
    const folder = await copyOfTiny();
    await change(join(folder, 'tokenizer', 'vocab.json'), { '!!</w>': 5 });
    await appendFile(join(folder, 'tokenizer', 'merges.txt'), '! !</w>\n');
    await withPrompts(folder, async (uneven) => {
      const [long, empty] = [await uneven.encode('!! '.repeat(38), 'plain'), await uneven.encode('', 'plain')];
      expect(long.report).toEqual({ chunks: 2, tokens: 76, dropped: 0, strategy: 'none' });
      // Columns of the first encoder in the second chunk, and its rows of the empty prompt.
      const width = long.embeds.length / long.tokens;
      const row = (embeds: Float32Array, t: number) => embeds.slice(t * width, t * width + FIRST_WIDTH);
      expect(row(long.embeds, 77 + 1)).toEqual(row(empty.embeds, 1));
      expect(row(long.embeds, 1)).not.toEqual(row(empty.embeds, 1));
    });
  });
});

describe('describePrompt', () => {
  it('lists ids of every chunk and what each weight applies to', () => {
    const tokens = describePrompt(tokenizers, 'a (red circle:1.3), blue--', 'weighted');
    expect(tokens.fragments).toEqual([
      { text: 'a', weight: 1, tokens: 1, prompt: 0 },
      { text: 'red circle', weight: 1.3, tokens: 2, prompt: 0 },
      { text: ',', weight: 1, tokens: 1, prompt: 0 },
      { text: 'blue', weight: 0.81, tokens: 1, prompt: 0 },
    ]);
    expect(tokens.encoders.map(({ chunks }) => chunks)).toEqual(
      tokenizers.map((each) => [each.encode('a red circle, blue').ids]),
    );
    expect(tokens.report).toEqual({ chunks: 1, tokens: 5, dropped: 0, strategy: 'compel' });
  });

  it('lists the prompts of an operator in order', () => {
    const { fragments, encoders, report } = describePrompt(tokenizers, '("red", "blue+").and()', 'weighted');
    expect(fragments.map(({ text, prompt }) => [text, prompt])).toEqual([
      ['red', 0],
      ['blue', 1],
    ]);
    expect(encoders.map(({ chunks }) => chunks.length)).toEqual([2, 2]);
    expect(report.chunks).toBe(2);
  });

  it('names all fifteen weights of a long prompt and no number among the text', () => {
    const { fragments } = describePrompt(tokenizers, overlong, 'weighted');
    expect(fragments.filter(({ weight }) => weight !== 1)).toHaveLength(15);
    expect(fragments.map(({ text }) => text).join()).not.toMatch(/[\d:()]/);
  });

  it('keeps 64 chunks and counts the rest', () => {
    const most = red(64 * 75);
    expect(describePrompt(tokenizers, most, 'plain').report).toMatchObject({ chunks: 64, dropped: 0 });
    expect(describePrompt(tokenizers, `${most} red`, 'plain').report).toMatchObject({ chunks: 64, dropped: 1 });
  });
});
