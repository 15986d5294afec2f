import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { EmbeddingNames, takeEmbeddingSigns } from '../../../src/pipelines/embeddings/embedding-names.js';
import { readEmbeddingSummary } from '../../../src/pipelines/embeddings/embedding-summary.js';
import { readEmbedding } from '../../../src/pipelines/embeddings/read-embedding.js';
import type { PromptSyntax, RequestEmbedding } from '../../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { withEmbeddings } from '../../../src/pipelines/sdxl/prompt/prompt-embeddings.js';
import { endTokenIndex } from '../../../src/pipelines/sdxl/prompt/text-rows.js';
import { readClipTokenizer } from '../../../src/tokenizer/clip.js';
import { Expected } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { tempFolder } from '../../support/temp-folder.js';
import { writeTensorFile } from '../../support/tensor-file.js';

const goldens = fileURLToPath(new URL('../../fixtures/goldens/embeddings', import.meta.url));
const FILES = { ink: 'ink.safetensors', clay: 'clay.safetensors', paper: 'paper.pt', neon: 'neon.bin' } as const;
const embeddings: readonly RequestEmbedding[] = Object.entries(FILES).map(([name, file]) => ({
  name,
  path: join(goldens, file),
  revision: '1',
}));
const { cases } = JSON.parse(await readFile(join(goldens, 'cases.json'), 'utf8')) as {
  cases: { key: string; prompt: string; syntax: PromptSyntax }[];
};

let pipeline: SdxlPipeline;
beforeAll(async () => {
  pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(() => pipeline.dispose());

describe('a prompt that names embeddings', () => {
  it.each(cases)('is encoded as diffusers and compel do: $key', async ({ key, prompt, syntax }) => {
    const expected = await Expected.read(join(goldens, 'expected.safetensors'));
    const { embeds, pooled } = await pipeline.networks.prompts.encode(prompt, syntax, embeddings);
    expect(difference(embeds, expected.floats(`${key}.embeds`)).relative).toBeLessThan(1e-5);
    expect(difference(pooled, expected.floats(`${key}.pooled`)).relative).toBeLessThan(1e-5);
  });

  it('is encoded anew where the file was replaced, and without them where the request has none', async () => {
    const { prompts } = pipeline.networks;
    const [ink] = embeddings as [RequestEmbedding];
    const first = await prompts.encode('a circle, ink', 'plain', [ink]);
    const other = { ...ink, path: join(goldens, 'clay.safetensors'), revision: '2' };
    const second = await prompts.encode('a circle, ink', 'plain', [other]);
    const without = await prompts.encode('a circle, ink', 'plain');
    expect(new Set([first, second, without].map(({ embeds }) => Buffer.from(embeds.buffer).toString('hex'))).size).toBe(
      3,
    );
    expect([first, second, without].map(({ report }) => report.tokens)).toEqual([5 + 1, 5, 5]);
  });

  it('pools the state of the end token, also where an old configuration names 2 for it', () => {
    expect(endTokenIndex(Int32Array.of(857, 5, 2 ** 24, 858, 858), 2)).toBe(3);
  });
});

describe('withEmbeddings', () => {
  it('keeps the vectors of one embedding in one chunk', async () => {
    const tokenizer = await readClipTokenizer(join(inject('wholeSdxl'), 'tokenizer'));
    const wrapped = withEmbeddings(tokenizer, [{ name: 'ink', counts: [3] }], 0);
    const ids = wrapped.tokenize('red ink');
    expect(ids.slice(-3)).toEqual([2 ** 24, 2 ** 24 + 1, 2 ** 24 + 2]);
    expect(ids.slice(-3).map((id) => wrapped.piece(id).endsWith('</w>'))).toEqual([false, false, true]);
  });

  it('leaves a name as text in an encoder without vectors', async () => {
    const tokenizer = await readClipTokenizer(join(inject('wholeSdxl'), 'tokenizer'));
    expect(withEmbeddings(tokenizer, [{ name: 'ink', counts: [3, 0] }], 1).tokenize('ink')).toEqual(
      tokenizer.tokenize('ink'),
    );
  });
});

describe('EmbeddingNames', () => {
  const names = new EmbeddingNames(['ink', 'ink wash', 'style/Ink', 'bad-hands-5', '<cat>', 'INK']);
  it.each([
    ['a pink ink', ['ink']],
    ['INK', ['INK']],
    ['Ink', ['ink']],
    ['an ink wash, ink', ['ink wash', 'ink']],
    ['an ink washed', ['ink']],
    ['style/ink', ['style/Ink']],
    ['bad-hands-5, bad-hands', ['bad-hands-5']],
    ['a <cat>s', ['<cat>']],
    ['inks, _ink', []],
  ])('finds in "%s" whole words', (text, found) => {
    expect(names.in(text)).toEqual(found);
  });

  // In some milliseconds; one that looks back at every sign would take minutes.
  it('reads 16 KB, whatever it is', { timeout: 10_000 }, () => {
    const many = new EmbeddingNames(Array.from({ length: 10_000 }, (_, i) => `name ${i}`));
    for (const text of ['name '.repeat(3_200), 'embedding:'.repeat(1_600), '('.repeat(16_000)])
      takeEmbeddingSigns(text, names);
    many.in('a red circle '.repeat(1_200));
    many.in('name '.repeat(3_200));
    expect(many.in('name 12345, name 77')).toEqual(['name 77']);
  });
});

describe('takeEmbeddingSigns', () => {
  const names = new EmbeddingNames(['ink', 'style/ink']);
  it.each([
    ['a circle, embedding:ink', 'a circle, ink', []],
    ['(embedding:style/ink:1.2)', '(style/ink:1.2)', []],
    ['embedding:clay, embedding: ink', 'clay, embedding: ink', ['clay']],
    ['my_embedding:ink', 'my_embedding:ink', []],
  ])('reads "%s" as ComfyUI does', (text, taken, unknown) => {
    expect(takeEmbeddingSigns(text, names)).toEqual({ text: taken, unknown });
  });
});

describe('an embedding file', () => {
  it.each([
    ['ink.safetensors', { base: 'SDXL', format: 'clip', counts: [3, 3] }],
    ['clay.safetensors', { base: 'unknown', format: 'diffusers', counts: [2, 2] }],
    ['paper.pt', { base: 'unknown', format: 'a1111', counts: [2, 0] }],
    ['neon.bin', { base: 'unknown', format: 'diffusers', counts: [1, 0] }],
  ])('is known: %s', async (file, summary) => {
    expect(await readEmbeddingSummary(join(goldens, file))).toMatchObject(summary);
  });

  const vectors = (shape: number[], value = 0) => ({
    dtype: 'F32',
    shape,
    bytes: Buffer.from(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value).buffer),
  });
  it.each([
    [{ emb_params: vectors([2, 768]) }, { base: 'Stable Diffusion 1' }],
    [{ emb_params: vectors([2, 1024]) }, { base: 'Stable Diffusion 2' }],
    [
      { text_encoders_0: vectors([2, 768]), text_encoders_1: vectors([2, 1280]) },
      { base: 'SDXL', counts: [2, 2] },
    ],
    [{ token: vectors([2, 1280]) }, { base: 'SDXL', counts: [0, 2] }],
  ])('says its base, %#', async (tensors, summary) => {
    const path = join(await tempFolder(), 'x.safetensors');
    await writeTensorFile(path, new Map(Object.entries(tensors)));
    expect(await readEmbeddingSummary(path)).toMatchObject(summary);
  });

  it.each([
    [
      'many tensors',
      { a: vectors([1, 8]), b: vectors([1, 8]) },
      /is no embedding: it must have clip_l and clip_g, or one tensor; it has 2, first "a", "b"/,
    ],
    [
      'too many vectors',
      { clip_g: vectors([129, 8]) },
      /has "clip_g" of shape \[129, 8\], must be 1 to 128 vectors of 1 to 8192 numbers/,
    ],
    ['another rank', { clip_g: vectors([1, 1, 8]) }, /of shape \[1, 1, 8\], must be/],
    ['a NaN', { clip_l: vectors([1, 32], Number.NaN) }, /has a NaN or an infinity in clip_l/],
    [
      'another width',
      { clip_l: vectors([1, 31]) },
      /has vectors of 31 numbers; the model's text encoders take 32 and 48/,
    ],
  ])('is refused with %s', async (_, tensors, message) => {
    const path = join(await tempFolder(), 'x.safetensors');
    await writeTensorFile(path, new Map(Object.entries(tensors)));
    await expect(readEmbedding({ name: 'x', path }, [32, 48])).rejects.toThrow(message);
  });

  it('names its first file where the second one is damaged', async () => {
    const path = join(await tempFolder(), 'clay.safetensors');
    await copyFile(join(goldens, 'clay.safetensors'), path);
    await writeFile(path.replace('.safetensors', '_2.safetensors'), 'x');
    await expect(readEmbeddingSummary(path)).rejects.toThrow(`the second file of ${path} is 1 bytes long`);
  });

  it('is one of one encoder without its second file', async () => {
    const folder = await tempFolder();
    await copyFile(join(goldens, 'clay.safetensors'), join(folder, 'clay.safetensors'));
    expect(await readEmbeddingSummary(join(folder, 'clay.safetensors'))).toMatchObject({ counts: [2, 0] });
  });
});
