import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CancelJobRequest } from '../../src/gen/darkroom/v1/job_service.js';
import { kinds, metadataOf, type Outcome, outcomeOf, quick, type Serving, serve, slow } from '../support/serving.js';

/** What a picture may differ by for having been made in company, of 255. */
const TOLERANCE = 2;

/** Ids of jobs in the order in which the server was done with them. */
const ended: string[] = [];
const logTo = {
  write(line: string): void {
    const { msg, jobId } = JSON.parse(line) as { msg: string; jobId: string };
    if (msg === 'job ended') ended.push(jobId);
  },
};

let serving: Serving;
beforeAll(async () => {
  serving = await serve({}, { logTo });
});
afterAll(() => serving.stop());

async function difference(a: Buffer | undefined, b: Buffer | undefined): Promise<number> {
  const [x, y] = await Promise.all([a, b].map((file) => sharp(file).raw().toBuffer()));
  if (x === undefined || y === undefined || x.length !== y.length) return Number.POSITIVE_INFINITY;
  return x.reduce((most, value, i) => Math.max(most, Math.abs(value - (y[i] ?? 0))), 0);
}

/** Starts a job that keeps the engine busy, so that others have to wait; resolves once it runs. */
async function blocker(): Promise<() => void> {
  const abort = new AbortController();
  await new Promise<void>((started) => {
    void outcomeOf(
      serving.client,
      { ...slow, width: 512, height: 512 },
      {
        signal: abort.signal,
        onEvent: ({ event }) => event?.$case === 'progress' && started(),
      },
    );
  });
  return () => abort.abort();
}

describe('jobs that wait', () => {
  it('share the denoiser where they fit, and each gets what it gets alone', async () => {
    const requests = [
      { ...quick, prompt: 'a red kite', steps: 6, seed: 1n },
      { ...quick, prompt: 'a green boat', steps: 6, seed: 50n, numImages: 3, guidanceScale: 3 },
      { ...quick, prompt: 'a blue door', steps: 6, seed: 9n, negativePrompt: 'grain' },
      // Another schedule: it does not fit.
      { ...quick, prompt: 'a red kite', steps: 5, seed: 1n },
    ];
    const release = await blocker();
    const together = requests.map((request) => outcomeOf(serving.client, request));
    await new Promise((resolve) => setTimeout(resolve, 300));
    release();
    const outcomes = await Promise.all(together);
    expect(outcomes.map((outcome) => metadataOf(outcome).batchImages)).toEqual([5, 5, 5, 1]);
    for (const [i, request] of requests.entries()) {
      const alone = await outcomeOf(serving.client, request);
      expect(metadataOf(alone).batchImages).toBe(request.numImages ?? 1);
      for (const [k, file] of alone.files.entries())
        expect(await difference(file, outcomes[i]?.files[k])).toBeLessThanOrEqual(TOLERANCE);
    }
  });

  it('go on when one of their batch is cancelled', async () => {
    const release = await blocker();
    const request = { ...quick, steps: 400 };
    const cancelled = outcomeOf(
      serving.client,
      { ...request, jobId: 'leaves' },
      {
        onEvent: ({ event }) => {
          if (event?.$case === 'progress' && event.value.step === 3) {
            serving.client.jobs.cancelJob(CancelJobRequest.fromPartial({ jobId: 'leaves' }), () => undefined);
          }
        },
      },
    );
    let steps = 0;
    const onEvent = ({ event }: Outcome['events'][number]) => {
      if (event?.$case === 'progress') steps = Math.max(steps, event.value.step);
    };
    const stays = outcomeOf(serving.client, { ...request, seed: 2n }, { onEvent });
    await new Promise((resolve) => setTimeout(resolve, 300));
    release();
    expect((await cancelled).error?.reason).toBe('CANCELLED');
    // It does not wait for the other's steps.
    expect(steps).toBeLessThan(request.steps / 2);
    expect(metadataOf(await stays).batchImages).toBe(2);
  });

  it('end when they are done, before the others of their batch', async () => {
    const release = await blocker();
    const request = { ...quick, width: 512, height: 512, steps: 1 };
    const first = outcomeOf(serving.client, { ...request, jobId: 'one-image' });
    const second = outcomeOf(serving.client, { ...request, jobId: 'six-images', numImages: 6 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    release();
    expect(metadataOf(await first).batchImages).toBe(7);
    expect(ended).toContain('one-image');
    expect(ended).not.toContain('six-images');
    expect((await second).files).toHaveLength(6);
  });

  it('run again alone when their engine dies under them, and none is lost', async () => {
    const release = await blocker();
    let killed = false;
    const onEvent = ({ event }: Outcome['events'][number]) => {
      if (killed || event?.$case !== 'progress' || event.value.step < 4) return;
      killed = true;
      process.kill(serving.engine.pid ?? 0, 'SIGKILL');
    };
    const jobs = [1n, 2n, 3n].map((seed) => outcomeOf(serving.client, { ...quick, steps: 200, seed }, { onEvent }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    release();
    const outcomes = await Promise.all(jobs);
    for (const outcome of outcomes) {
      expect(outcome.error).toBeUndefined();
      expect(metadataOf(outcome).batchImages).toBe(1);
      expect(outcome.files).toHaveLength(1);
      const fractions = outcome.events.flatMap(({ event }) =>
        event?.$case === 'progress' ? [event.value.fraction] : [],
      );
      expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    }
    expect(kinds(outcomes[0]?.events ?? []).filter((kind) => kind === 'started')).toHaveLength(2);
  });
});
