import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { OutputMetadata } from '../../src/gen/darkroom/v1/job.js';
import { type GetServerStatusResponse, type Model, ModelState } from '../../src/gen/darkroom/v1/model_service.js';
import { HealthCheckResponse_ServingStatus as Health, HealthClient } from '../../src/gen/grpc/health/v1/health.js';
import { darkroom } from '../support/command-line.js';
import { Scrape } from '../support/metrics.js';
import { metadataOf, outcomeOf, quick, type Serving, serve, slow, until } from '../support/serving.js';

const golden = fileURLToPath(new URL('../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url));

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  for (const name of ['ink', 'clay']) await copyFile(golden, join(folder, `${name}.safetensors`));
  serving = await serve({
    SDXL_PATH: inject('wholeSdxl'),
    DEVICES: 'cpu,cpu',
    SDXL_REPLICAS: '2',
    LORA_DIR: folder,
    METRICS_LISTEN: '127.0.0.1:0',
  });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

const bare = { ...quick, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
/** Long enough to be killed in its middle. */
const long = { ...bare, width: 128, height: 128, steps: 60 };

const status = (): Promise<GetServerStatusResponse> =>
  new Promise((resolve, reject) =>
    serving.client.models.getServerStatus({}, (error, response) => (error ? reject(error) : resolve(response))),
  );
const sdxl = async (): Promise<Model> => (await status()).models[0] as Model;
const running = async () => (await sdxl()).engines.map(({ runningJobs }) => runningJobs);

async function health(): Promise<Health> {
  const client = new HealthClient(`127.0.0.1:${serving.server.port}`, credentials.createInsecure());
  const status = await new Promise<Health>((resolve, reject) =>
    client.check({ service: '' }, (error, response) => (error ? reject(error) : resolve(response.status))),
  );
  client.close();
  return status;
}

describe('a model on two devices', () => {
  it('is listed with both engines', async () => {
    const { engines, state } = await sdxl();
    expect(state).toBe(ModelState.MODEL_STATE_READY);
    expect(engines).toMatchObject([
      { name: 'sdxl-0', device: 'cpu:0', state: ModelState.MODEL_STATE_READY, runningJobs: 0, restarts: 0 },
      { name: 'sdxl-1', device: 'cpu:1', state: ModelState.MODEL_STATE_READY, runningJobs: 0, restarts: 0 },
    ]);
    for (const { residentBytes, networks } of engines) {
      expect(residentBytes).toBeGreaterThan(0n);
      expect(networks.map(({ network }) => network)).toContain('unet');
    }
    const { stdout } = await darkroom(['status', '--server', `127.0.0.1:${serving.server.port}`]);
    expect(stdout).toMatch(/^sdxl .*ready.*\n {2}sdxl-0 .*ready +cpu:0 .*\n {2}sdxl-1 .*ready +cpu:1 /m);
    const scrape = await Scrape.of(serving.metricsUrl);
    for (const engine of ['sdxl-0', 'sdxl-1']) {
      expect(scrape.value('darkroom_engine_state', { engine, state: 'ready' })).toBe(1);
      expect(scrape.value('darkroom_engine_resident_bytes', { engine })).toBeGreaterThan(0);
    }
  });

  it('runs two jobs at the same time, with the results of one engine', async () => {
    const alone = await serve({ SDXL_PATH: inject('wholeSdxl') });
    const requests = [1n, 2n].map((seed) => ({ ...long, seed }));
    const jobs = requests.map((request) => outcomeOf(serving.client, request));
    await until(async () => (await running()).join() === '1,1');
    const outcomes = await Promise.all(jobs);
    expect(outcomes.map((outcome) => metadataOf(outcome).engine).sort()).toEqual(['sdxl-0', 'sdxl-1']);
    for (const [i, request] of requests.entries())
      expect(outcomes[i]?.files).toEqual((await outcomeOf(alone.client, request)).files);
    await alone.stop();
  });

  it('loses the job of an engine that is killed and no other; the killed one takes jobs again', async () => {
    const begun = new Set<bigint>();
    const jobs = [1n, 2n].map((seed) =>
      outcomeOf(
        serving.client,
        { ...long, steps: 150, seed },
        { onEvent: ({ event }) => event?.$case === 'progress' && begun.add(seed) },
      ),
    );
    await until(() => begun.size === 2);
    const [first] = serving.engines;
    process.kill(first?.pid ?? 0, 'SIGKILL');
    await until(() => first?.state === 'restarting');
    expect(await health()).toBe(Health.SERVING);
    // The other one takes jobs.
    expect(serving.server.notReady()).toBeUndefined();
    expect(serving.server.notReady('sdxl')).toBeUndefined();
    const outcomes = await Promise.all(jobs);
    const failed = outcomes.filter(({ error }) => error !== undefined);
    expect(failed.map(({ error }) => [error?.reason, error?.retryable])).toEqual([['ENGINE_CRASHED', true]]);
    const [survivor] = outcomes.filter(({ error }) => error === undefined);
    expect(metadataOf(survivor as (typeof outcomes)[0]).engine).toBe('sdxl-1');
    await first?.whenReady();
    expect((await sdxl()).engines.map(({ restarts }) => restarts)).toEqual([1, 0]);
    // What the dead process held, the new one does not.
    expect((await sdxl()).engines.map(({ deviceBytes }) => deviceBytes > 0n)).toEqual([false, true]);
    const next = [3n, 4n].map((seed) => outcomeOf(serving.client, { ...long, seed }));
    const engines = (await Promise.all(next)).map((outcome) => metadataOf(outcome).engine);
    expect(engines.sort()).toEqual(['sdxl-0', 'sdxl-1']);
  });

  it('sends a job with a LoRA to the engine that holds its variant', async () => {
    const withLora = (name: string) => ({ ...bare, loras: [{ name }] });
    const holder = metadataOf(await outcomeOf(serving.client, withLora('ink'))).engine;
    // The other LoRA is built where no variant is lost.
    const other = metadataOf(await outcomeOf(serving.client, withLora('clay'))).engine;
    expect([holder, other].sort()).toEqual(['sdxl-0', 'sdxl-1']);
    // Each engine built one.
    const scrape = await Scrape.of(serving.metricsUrl);
    expect(scrape.value('darkroom_variants_total', { event: 'built' })).toBe(2);
    const again = await Promise.all(
      ['ink', 'clay', 'ink', 'clay'].map((name) => outcomeOf(serving.client, withLora(name))),
    );
    expect(again.map((outcome) => metadataOf(outcome))).toMatchObject(
      [holder, other, holder, other].map((engine) => ({ engine, buildSeconds: 0 })),
    );
  });

  it('builds a variant twice where its engine is busy for longer than a build takes', async () => {
    const abort = new AbortController();
    const request = { ...slow, loras: [{ name: 'ink' }] };
    const blocker = outcomeOf(serving.client, request, { signal: abort.signal });
    await until(async () => (await running()).includes(1));
    const holder = (await sdxl()).engines.find(({ runningJobs }) => runningJobs > 0)?.name;
    const { engine, buildSeconds } = metadataOf(await outcomeOf(serving.client, { ...bare, loras: [{ name: 'ink' }] }));
    expect(engine).not.toBe(holder);
    expect(buildSeconds).toBeGreaterThan(0);
    abort.abort();
    await blocker;
  });

  it('places a waiting job before the engine that is free first', async () => {
    await until(async () => (await running()).join() === '0,0');
    const abort = new AbortController();
    const blockers = [0, 1].map(() => outcomeOf(serving.client, slow, { signal: abort.signal }));
    await until(async () => (await running()).join() === '1,1');
    const waiting = outcomeOf(serving.client, quick);
    await until(async () => (await status()).queuedJobs === 1);
    abort.abort();
    expect((await waiting).events[0]?.event).toMatchObject({ $case: 'queued', value: { position: 2 } });
    expect((await waiting).files).toHaveLength(1);
    await Promise.all(blockers);
  });
});
