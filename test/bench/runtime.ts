/**
 * npm run bench -- runtime [--model PATH] [--seconds 30] [--sessions 1000] [--threads 1]
 *
 * Both implementations of sessions in one process, in turns: what a run costs beside its arithmetic, a step of the UNet, loading, the
 * time from a cancel to the end of the run, and the pauses of the event loop. Then gRPC health checks of this process during one run
 * of the given length, and the memory of many sessions. Without --model it uses the tiny SDXL.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { HealthClient } from '../../src/gen/grpc/health/v1/health.js';
import { Graph } from '../../src/graph/graph.js';
import { add } from '../../src/graph/ops.js';
import type { SdxlNetworks } from '../../src/pipelines/sdxl/networks.js';
import { loadSdxlNetworks } from '../../src/pipelines/sdxl/networks.js';
import { type Backend, openBackend } from '../../src/runtime/backend.js';
import { createSession, type Feed, type NetworkSession } from '../../src/runtime/session.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { quantile } from './served.js';
import { figure, print, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    seconds: { type: 'string', default: '30' },
    sessions: { type: 'string', default: '1000' },
    threads: { type: 'string', default: '1' },
  },
});

/** Side of the image, in pixels, whose UNet steps are measured and ended. */
const IMAGE = 768;
const SIDE = 256;

const threads = Number(options.threads);
const names = ['native', 'binding'] as const;
const backends = new Map<string, Backend>();
for (const runtime of names) backends.set(runtime, await openBackend({ provider: 'cpu', threads, runtime }));

print(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, cpu, ${threads} threads; load ${loadavg()[0]}`);
const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const path = options.model ?? (await writeTinySdxl(join(folder, 'sdxl')));
  await measureOverhead();
  await measureNetworks(path);
  await measureHealth();
  for (const [name, backend] of backends) await measureSessions(name, backend);
} finally {
  await rm(folder, { recursive: true });
}

async function measureOverhead(): Promise<void> {
  const graph = new Graph('sum', { attention: 'fused', compute: 'f32' });
  const x = graph.floatInput('x', ['N']);
  graph.output('y', add(graph, x, x));
  for (const [size, unit] of [
    [4, 'an Add of 4 numbers'],
    [2 ** 20, 'an Add of 4 MiB'],
  ] as const) {
    const feeds = { x: { data: new Float32Array(size), shape: [size] } };
    const spent = await inTurns(30, async (backend) => {
      const session = await createSession(graph, backend);
      await session.run(feeds);
      const begin = performance.now();
      for (let i = 0; i < 20; i += 1) await session.run(feeds);
      const ms = (performance.now() - begin) / 20;
      await session.release();
      return ms;
    });
    report(`a run of ${unit}, median of 30`, spent, 'ms');
  }
}

async function measureNetworks(path: string): Promise<void> {
  const loads = await inTurns(9, async (backend) => {
    const lap = stopwatch();
    const networks = await loadSdxlNetworks({ path, backend });
    const { cpu } = lap();
    await networks.release();
    return cpu * 1000;
  });
  report('loading SDXL, CPU time, median of 9', loads, 'ms');

  const loaded = new Map<Backend, SdxlNetworks>();
  for (const backend of backends.values()) loaded.set(backend, await loadSdxlNetworks({ path, backend }));
  const step = (backend: Backend, signal?: AbortSignal) => {
    const networks = loaded.get(backend);
    if (networks === undefined) throw new Error('not loaded');
    const { unet } = networks.config;
    const side = IMAGE / 8;
    const width = unet.cross_attention_dim;
    return networks.denoiser.predictNoise({
      latents: new Float32Array(2 * unet.in_channels * side * side).fill(0.5),
      height: side,
      width: side,
      timestep: 500,
      context: new Float32Array(2 * 77 * width).fill(0.1),
      pooled: new Float32Array(2 * (unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim)),
      timeIds: [0, 1].map(() => [IMAGE, IMAGE, 0, 0, IMAGE, IMAGE]),
      signal,
    });
  };
  const walls: number[] = [];
  const steps = await inTurns(7, async (backend) => {
    const lap = stopwatch();
    await step(backend);
    const { cpu, wall } = lap();
    walls.push(wall * 1000);
    return cpu * 1000;
  });
  report(`a UNet step at ${IMAGE}x${IMAGE} with guidance, CPU time, median of 7`, steps, 'ms');
  const pauses = await inTurns(7, (backend) => longestPause(() => step(backend)));
  report('longest pause of the event loop during it, median of 7', pauses, 'ms');
  const cancels = await inTurns(20, async (backend) => {
    const controller = new AbortController();
    const run = step(backend, controller.signal).catch(() => undefined);
    await delay(quantile(walls, 0.5) * Math.random() * 0.8);
    const begin = performance.now();
    controller.abort(new Error('cancelled'));
    await run;
    return performance.now() - begin;
  });
  // The binding ends the run before the timer of the cancel fires.
  const ends = new Map([['native', cancels.get('native') ?? []]]);
  report('from a cancel inside the step to its end, median of 20', ends, 'ms');
  report('the same, the longest of 20', ends, 'ms', 1);
  for (const networks of loaded.values()) await networks.release();
}

/** gRPC health checks of this process while it is inside one run. */
async function measureHealth(): Promise<void> {
  const server = new Server();
  new HealthImplementation({ '': 'SERVING' }).addToServer(server);
  const port = await promisify(server.bindAsync.bind(server))('127.0.0.1:0', ServerCredentials.createInsecure());
  const health = new HealthClient(`127.0.0.1:${port}`, credentials.createInsecure());
  const check = async () => {
    const begin = performance.now();
    await new Promise<void>((resolve, reject) =>
      health.check({ service: '' }, (error) => (error ? reject(error) : resolve())),
    );
    return performance.now() - begin;
  };
  for (let i = 0; i < 20; i += 1) await check();
  const backend = backends.get('native');
  if (backend === undefined) return;
  const { session, feeds } = await longRun(backend, Number(options.seconds) * 1000);
  const begin = performance.now();
  let isOver = false;
  const run = session.run(feeds).finally(() => {
    isOver = true;
  });
  const latencies: number[] = [];
  while (!isOver) {
    latencies.push(await check());
    await delay(10);
  }
  await run;
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  await session.release();
  const note = `native; ${latencies.length} checks in one process during one run of ${seconds} s`;
  figure('health, p50', quantile(latencies, 0.5), 'ms', note);
  figure('health, p99', quantile(latencies, 0.99), 'ms', 'to hold: 20');
  health.close();
  server.forceShutdown();
}

/** A chain of matrix products that takes so long on an idle machine. */
async function longRun(
  backend: Backend,
  ms: number,
): Promise<{ session: NetworkSession; feeds: Readonly<Record<string, Feed>> }> {
  const feeds = { x: { data: new Float32Array(SIDE * SIDE).fill(1 / SIDE), shape: [SIDE, SIDE] } };
  const open = (nodes: number) => {
    const graph = new Graph('long', { attention: 'fused', compute: 'f32' });
    const x = graph.floatInput('x', [SIDE, SIDE]);
    let y = x;
    for (let i = 0; i < nodes; i += 1) y = graph.node('MatMul', [y, x], [SIDE, SIDE]);
    graph.output('y', y);
    return createSession(graph, backend);
  };
  const probe = await open(500);
  let each = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 10; i += 1) {
    const begin = performance.now();
    await probe.run(feeds);
    each = Math.min(each, (performance.now() - begin) / 500);
  }
  await probe.release();
  return { session: await open(Math.ceil(ms / each)), feeds };
}

async function measureSessions(name: string, backend: Backend): Promise<void> {
  const count = Number(options.sessions);
  const feeds = { x: { data: new Float32Array(SIDE * SIDE), shape: [SIDE, SIDE] } };
  let after100 = 0;
  for (let i = 0; i < count; i += 1) {
    if (i === 100) after100 = process.memoryUsage.rss();
    const graph = new Graph('sum', { attention: 'fused', compute: 'f32' });
    const x = graph.floatInput('x', [SIDE, SIDE]);
    graph.output('y', add(graph, x, x));
    const session = await createSession(graph, backend);
    await session.run(feeds);
    await session.release();
  }
  figure(
    `resident memory added by sessions 101 to ${count}`,
    (process.memoryUsage.rss() - after100) / 2 ** 20,
    'MiB',
    name,
  );
}

/** Measures both implementations alternately: other work on the machine meets both. */
async function inTurns(rounds: number, measure: (backend: Backend) => Promise<number>): Promise<Map<string, number[]>> {
  const all = new Map<string, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, backend] of backends) all.get(name)?.push(await measure(backend));
  }
  return all;
}

async function longestPause(task: () => Promise<unknown>): Promise<number> {
  let last = performance.now();
  let longest = 0;
  const look = () => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  };
  const timer = setInterval(look, 1);
  await task();
  look();
  clearInterval(timer);
  return longest;
}

function report(what: string, all: ReadonlyMap<string, readonly number[]>, unit: string, share = 0.5): void {
  for (const [name, values] of all) figure(what, quantile(values, share), unit, name);
}
