import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type JobEvent, Phase } from '../../src/gen/darkroom/v1/event.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { kinds, metadataOf, modelsOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

let serving: Serving;
beforeAll(async () => {
  serving = await serve({}, { withWan: true });
});
afterAll(() => serving.stop());

/** One run of its decode blocks SDXL's engine for seconds. */
const picture = (side: number) => ({ ...quick, width: side, height: side, steps: 1 });
const clip = { ...quick, jobType: JobType.JOB_TYPE_IMAGE_FAST, steps: 30 };

const isDecoding = ({ event }: JobEvent) =>
  event?.$case === 'progress' && event.value.phase === Phase.PHASE_DENOISE && event.value.step === event.value.total;

/** Runs the picture, of this side, and something else as soon as its decode blocks the engine. */
async function whileSdxlWorks<T>(side: number, work: () => Promise<T>): Promise<{ result: T; wasFirst: boolean }> {
  let other: Promise<T> | undefined;
  let isOver = false;
  let wasFirst = false;
  const { error } = await outcomeOf(serving.client, picture(side), {
    onEvent: (event) => {
      if (!isDecoding(event)) return;
      other ??= work().then((result) => {
        wasFirst = !isOver;
        return result;
      });
    },
  });
  isOver = true;
  expect(error).toBeUndefined();
  if (other === undefined) throw new Error('the picture was never decoded');
  return { result: await other, wasFirst };
}

describe('SDXL and WAN on one server', () => {
  it('say what each of their networks computes in: in the list of models, and in a job', async () => {
    const models = await modelsOf(serving);
    const networks = (name: string) =>
      models
        .find((model) => model.name === name)
        ?.networks.map(({ network, precision, reason }) => [network, precision, reason]);
    expect(networks('sdxl')).toEqual(
      ['text_encoder', 'text_encoder_2', 'unet', 'unet_shallow', 'vae_decoder', 'vae_encoder'].map((name) => [
        name,
        'fp32',
        '',
      ]),
    );
    expect(networks('wan')).toContainEqual(['transformer', 'fp32', '']);
    // One that is opened when it is first needed is known before.
    expect(networks('wan')).toContainEqual(['text_encoder', 'fp32', '']);
    const { precisions } = metadataOf(await outcomeOf(serving.client, quick));
    expect(precisions).toMatchObject({ unet: 'fp32', vae_decoder: 'fp32' });
  });

  it('work at the same time: a WAN job tells its steps and ends while SDXL sits in one run', async () => {
    const { result, wasFirst } = await whileSdxlWorks(1280, () => outcomeOf(serving.client, clip));
    expect(wasFirst).toBe(true);
    expect(kinds(result.events).filter((kind) => kind === 'progress').length).toBeGreaterThanOrEqual(30);
    expect(result.error).toBeUndefined();
  });

  it('cancel apart: a WAN job ends at once while SDXL sits in one run, which goes on', async () => {
    const { result, wasFirst } = await whileSdxlWorks(896, () => {
      const abort = new AbortController();
      return outcomeOf(
        serving.client,
        { ...clip, steps: 1000 },
        { signal: abort.signal, onEvent: ({ event }) => event?.$case === 'progress' && abort.abort() },
      );
    });
    expect(wasFirst).toBe(true);
    expect(result.error?.reason).toBe('CANCELLED');
  });
});
