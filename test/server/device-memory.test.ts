import { afterEach, expect, it } from 'vitest';
import type { Model } from '../../src/gen/darkroom/v1/model_service.js';
import { outcomeOf, quick, type Serving, serve } from '../support/serving.js';

let serving: Serving;
afterEach(async () => {
  await serving.stop();
});

const models = async (): Promise<readonly Model[]> =>
  new Promise((resolve, reject) =>
    serving.client.models.listModels({}, (error, response) => (error ? reject(error) : resolve(response.models))),
  );

it('what an engine holds on its device grows with its largest job, and is in ListModels', async () => {
  serving = await serve();
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
