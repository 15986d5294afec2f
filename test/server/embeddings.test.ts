import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tokenize } from '../../src/client/client.js';
import { PromptSyntax } from '../../src/gen/darkroom/v1/job.js';
import { metadataOf, modelsOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';
import { writeTensorFile } from '../support/tensor-file.js';

const golden = (file: string) => fileURLToPath(new URL(`../fixtures/goldens/embeddings/${file}`, import.meta.url));

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await mkdir(join(folder, 'style'));
  await copyFile(golden('ink.safetensors'), join(folder, 'style', 'ink.safetensors'));
  for (const file of ['clay.safetensors', 'clay_2.safetensors', 'paper.pt'])
    await copyFile(golden(file), join(folder, file));
  const table = { dtype: 'F32', shape: [1, 768], bytes: Buffer.alloc(4 * 768) };
  await writeTensorFile(join(folder, 'old.safetensors'), new Map([['emb_params', table]]));
  await writeFile(join(folder, 'broken.pt'), 'no zip');
  for (let i = 0; i < 17; i += 1) await copyFile(golden('ink.safetensors'), join(folder, `many${i}.safetensors`));
  serving = await serve({ EMBEDDING_DIR: folder });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

const outcome = (request: object) => outcomeOf(serving.client, { ...quick, guidanceScale: 5, ...request });
const errorOf = async (request: object) => (await outcome(request)).error;

describe('a job whose prompts name embeddings', () => {
  it('tells which it used, and draws another image with them', async () => {
    const negativePrompt = 'blur, clay';
    const named = await outcome({ prompt: 'a circle, style/ink', negativePrompt });
    expect(metadataOf(named)).toMatchObject({ embeddings: ['style/ink', 'clay'], promptTokens: 3 + 3 });
    const other = await outcome({ prompt: 'a circle, style ink', negativePrompt });
    expect(metadataOf(other).embeddings).toEqual(['clay']);
    expect(named.files).not.toEqual(other.files);
  });

  it.each([
    ['embedding:style/ink', 'style/ink', PromptSyntax.PROMPT_SYNTAX_PLAIN],
    ['(embedding:Style/Ink:1.3) circle', '(style/ink)1.3 circle', PromptSyntax.PROMPT_SYNTAX_WEIGHTED],
  ])('reads "%s" as "%s"', async (prompt, same, promptSyntax) => {
    const [one, two] = [await outcome({ prompt, promptSyntax }), await outcome({ prompt: same, promptSyntax })];
    expect(metadataOf(one)).toMatchObject({ embeddings: ['style/ink'], originalPrompt: prompt });
    expect(one.files.length).toBe(1);
    expect(metadataOf(one).promptTokens).toBe(metadataOf(two).promptTokens);
  });

  it.each([
    [
      { prompt: 'embedding:inc', promptSyntax: PromptSyntax.PROMPT_SYNTAX_PLAIN },
      'EMBEDDING_NOT_FOUND',
      /^embedding "inc" is not known; the nearest are /,
    ],
    [
      { prompt: 'embedding:old', promptSyntax: PromptSyntax.PROMPT_SYNTAX_PLAIN },
      'MODEL_UNSUPPORTED',
      /^embedding "old" is for Stable Diffusion 1; the model is SDXL$/,
    ],
    [{ negativePrompt: 'broken' }, 'CHECKPOINT_INVALID', /^embedding "broken" /],
    [{ prompt: 'paper' }, undefined, /^$/],
    [
      { prompt: Array.from({ length: 17 }, (_, i) => `many${i}`).join(' ') },
      'INVALID_REQUEST',
      /^prompts name 17 embeddings, must name at most 16; take some out$/,
    ],
    [
      { prompt: 'clay '.repeat(2_401) },
      'INVALID_REQUEST',
      /^embeddings in prompt have 4802 tokens, must have at most 4800; take some out$/,
    ],
  ])('ends as it must: %#', async (request, reason, message) => {
    const error = await errorOf(request);
    expect(error?.reason).toBe(reason);
    expect(error?.message ?? '').toMatch(message);
  });

  it('takes the name of a file for another base as text where no sign stands before it', async () => {
    expect(metadataOf(await outcome({ prompt: 'an old circle' })).embeddings).toEqual([]);
  });

  it('does not let a name hide a word from the policy', async () => {
    await copyFile(golden('ink.safetensors'), join(folder, 'explicit child.safetensors'));
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    expect((await errorOf({ prompt: 'a circle, EXPLICIT child' }))?.reason).toBe('POLICY');
    await rm(join(folder, 'explicit child.safetensors'));
  });

  it('tells the problem of a file that is gone in the meantime by its name alone', async () => {
    await copyFile(golden('ink.safetensors'), join(folder, 'fleeting.safetensors'));
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    await errorOf({ prompt: 'nothing of it' });
    await rm(join(folder, 'fleeting.safetensors'));
    const error = await errorOf({ prompt: 'fleeting' });
    expect(error?.message).toBe('embedding "fleeting" does not exist or cannot be read');
  });
});

describe('Tokenize', () => {
  it('counts the vectors of embeddings', async () => {
    const counted = await tokenize(serving.client, { text: 'a circle, (clay:1.2)' });
    expect(counted.encoders.map(({ tokens }) => tokens)).toEqual([3 + 2, 3 + 2]);
    expect(counted.encoders[0]?.ids.filter((id) => id >= 2 ** 24)).toEqual([2 ** 24, 2 ** 24 + 1]);
    expect(counted.phrases).toEqual([
      { text: 'a circle,', weight: 1, tokens: 3 },
      { text: 'clay', weight: 1.2, tokens: 2 },
    ]);
  });
});

describe('ListModels', () => {
  it('has the embeddings of a model, and what is wrong with a file', async () => {
    const [model] = await modelsOf(serving);
    const known = new Map(model?.embeddings.map((embedding) => [embedding.name, embedding]));
    expect(known.get('style/ink')).toMatchObject({ base: 'SDXL', format: 'clip', vectors: 3, problem: '' });
    expect(known.get('clay')).toMatchObject({ base: 'unknown', format: 'diffusers', vectors: 2 });
    expect(known.get('broken')?.problem).toMatch(/^embedding "broken" /);
    expect(known.has('old')).toBe(false);
  });
});
