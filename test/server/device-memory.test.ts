import { afterEach, expect, inject, it } from 'vitest';
import { metadataOf, modelsOf, outcomeOf, quick, type Serving, serve, until } from '../support/serving.js';

let serving: Serving;
afterEach(async () => {
  await serving.stop();
});

const models = () => modelsOf(serving);

it('what an engine holds on its device grows with its largest job, and is in ListModels', async () => {
  serving = await serve({ SDXL_PATH: inject('wholeSdxl') });
  const held = async () => Number((await models())[0]?.engines[0]?.deviceBytes);
  expect(await held()).toBe(0);
  await outcomeOf(serving.client, quick);
  const small = await held();
  expect(small).toBeGreaterThan(30e6);
  await outcomeOf(serving.client, { ...quick, width: 512, height: 512, steps: 1 });
  const large = await held();
  expect(large).toBeGreaterThan(small + 50e6);
  await outcomeOf(serving.client, quick);
  expect(await held()).toBe(large);
});

it('what a batch takes is that of the job that is enlarged, whichever is the first', async () => {
  serving = await serve();
  const held = async () => Number((await models())[0]?.engines[0]?.deviceBytes);
  const plain = { ...quick, seed: 2n };
  const enlarged = { ...quick, upscale: { upscaler: 'latent', factor: 4, strength: 0.5, steps: 2 } };
  const before = outcomeOf(serving.client, { ...quick, steps: 60 });
  await until(async () => (await held()) > 0);
  const batch = [plain, enlarged].map((request) => outcomeOf(serving.client, request));
  await before;
  for (const job of batch) expect(metadataOf(await job).batchImages).toBe(2);
  const together = await held();
  await outcomeOf(serving.client, enlarged);
  expect(await held()).toBe(together);
});
