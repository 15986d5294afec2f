import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tokenize as tokenizeOn } from '../../src/client/client.js';
import type { TokenizeRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { JobType, PromptSyntax } from '../../src/gen/darkroom/v1/job.js';
import { metadataOf, type Outcome, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

let serving: Serving;
beforeAll(async () => {
  serving = await serve();
});
afterAll(() => serving.stop());

const tokenize = (request: Partial<TokenizeRequest>) => tokenizeOn(serving.client, request);

/** What the old system lost 40 % of. */
const OVERLONG =
  '(highly detailed:1.3), (intricate:1.2), (fine details:1.1), (masterpiece:1.2), (best quality:1.3), (professional:1.1), (realistic:1.3), (natural proportions:1.1), (professional photography:1.2), (studio lighting:1.1), (cinematic:1.1), (high quality:1.3), (detailed:1.3), (sharp focus:1.3), (professional photography:1.2)';

describe('weights', () => {
  it('of fifteen phrases lose no token, and the metadata says so', async () => {
    const outcome = await outcomeOf(serving.client, {
      ...quick,
      prompt: 'a portrait of a woman in a garden',
      weights: OVERLONG,
    });
    expect(metadataOf(outcome)).toMatchObject({
      droppedTokens: 0,
      enhancementStrategy: 'compel',
      finalPromptType: 'conditioning_tensor',
      weights: OVERLONG,
      promptProblem: undefined,
    });
    expect(metadataOf(outcome).promptTokens).toBeGreaterThan(40);
  });

  it('change the picture', async () => {
    const of = async (weights: string) => {
      const { files } = await outcomeOf(serving.client, { ...quick, steps: 6, weights });
      return sharp(files[0]).raw().toBuffer();
    };
    expect(await of('(a blue door:1.5)')).not.toEqual(await of('(a blue door:1.1)'));
  });

  it('that cannot be read are left out: the picture is that of the plain prompt', async () => {
    const broken = await outcomeOf(serving.client, {
      ...quick,
      jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST,
      weights: '(a blue door:1.5',
    });
    const plain = await outcomeOf(serving.client, { ...quick, jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST });
    const pixels = ({ files }: Outcome) => sharp(files[0]).raw().toBuffer();
    expect(await pixels(broken)).toEqual(await pixels(plain));
    expect(metadataOf(broken)).toMatchObject({
      enhancementStrategy: 'fallback',
      finalPromptType: 'string',
      promptProblem: expect.stringContaining('"(" is never closed'),
    });
    expect(metadataOf(broken).promptTokens).toBe(metadataOf(plain).promptTokens);
  });

  it('cannot stand beside another syntax', async () => {
    const { error } = await outcomeOf(serving.client, {
      ...quick,
      weights: '(sea:1.2)',
      promptSyntax: PromptSyntax.PROMPT_SYNTAX_PLAIN,
    });
    expect(error?.violations.map(({ field }) => field)).toEqual(['prompt_syntax']);
  });
});

describe('a long prompt', () => {
  const prompt = 'a lighthouse on a cliff at dawn with waves breaking below, '.repeat(12);

  it('goes on in further chunks for a job type, and is cut as in diffusers without one', async () => {
    const job = metadataOf(
      await outcomeOf(serving.client, { ...quick, prompt, jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST }),
    );
    const bare = metadataOf(await outcomeOf(serving.client, { ...quick, prompt }));
    expect(job.droppedTokens).toBe(0);
    expect(job.promptChunks).toBeGreaterThan(1);
    expect(bare).toMatchObject({ promptChunks: 1, promptTokens: job.promptTokens });
    expect(bare.droppedTokens).toBe((job.promptTokens ?? 0) - 75);
  });
});

describe('Tokenize', () => {
  it('tells tokens, chunks and what each weight applies to', async () => {
    const response = await tokenize({ text: 'a red circle (masterpiece:1.3), (sharp)0.5' });
    expect(response.problem).toBe('');
    expect(response.phrases.map(({ text, weight }) => [text.trim(), Number(weight.toFixed(3))])).toEqual([
      ['a red circle', 1],
      ['masterpiece', 1.3],
      [',', 1],
      ['sharp', 0.5],
    ]);
    expect(response.encoders.map(({ encoder, chunks, dropped }) => [encoder, chunks, dropped])).toEqual([
      ['text_encoder', 1, 0],
      ['text_encoder_2', 1, 0],
    ]);
    const [first] = response.encoders;
    expect(first?.ids).toHaveLength(77);
    expect(first?.tokens).toBe(response.phrases.reduce((sum, { tokens }) => sum + tokens, 0));
  });

  it('says why a text cannot be read, and what diffusers would cut off', async () => {
    expect((await tokenize({ text: 'a (red circle' })).problem).toContain('"(" is never closed');
    const text = 'a red circle, '.repeat(40);
    const cut = await tokenize({ text, promptSyntax: PromptSyntax.PROMPT_SYNTAX_DIFFUSERS });
    expect(cut.encoders[0]).toMatchObject({ chunks: 1, dropped: (cut.encoders[0]?.tokens ?? 0) - 75 });
    expect((await tokenize({ text })).encoders[0]).toMatchObject({ dropped: 0 });
  });

  it('refuses a model that is not there and a text that is too long', async () => {
    await expect(tokenize({ model: 'other', text: 'a' })).rejects.toMatchObject({ reason: 'MODEL_NOT_FOUND' });
    await expect(tokenize({ text: 'x'.repeat(16_385) })).rejects.toMatchObject({ reason: 'INVALID_REQUEST' });
  });
});
