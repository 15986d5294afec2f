import { execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { afterEach, describe, expect, inject, it, vi } from 'vitest';
import { createEngine, type Engine, type EngineOptions, type RunHandle } from '../../src/engine/engine.js';
import { InferenceError } from '../../src/errors.js';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import type { RuntimeName } from '../../src/runtime/runtime-names.js';
import { createBackoff } from '../../src/std/backoff.js';
import { engineEntry, isAlive, silent, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

const quick: GenerationRequest = {
  prompt: 'a red circle',
  negativePrompt: undefined,
  width: 64,
  height: 64,
  steps: 2,
  guidanceScale: 6,
  scheduler: 'euler',
  seeds: [1],
};
const output = { format: 'png', metadata: 'none' } as const;
/** Its decode is one run of some seconds. */
const slow: GenerationRequest = { ...quick, width: 1024, height: 1024, steps: 1 };

let engine: Engine;
afterEach(() => engine.stop());

function specOf(path: string, runtime: RuntimeName = 'auto'): EngineOptions['spec'] {
  return { model: 'tiny', family: 'sdxl', source: { path }, device: 'cpu', threads: 1, runtime, batchPixels: 2 ** 20 };
}

function create(options: Partial<EngineOptions> = {}, path: string = inject('tinySdxl')): Engine {
  engine = createEngine({
    spec: specOf(path),
    log: silent,
    entry: engineEntry,
    backoffMs: { initial: 20, max: 200 },
    ...options,
  });
  return engine;
}

async function eventsOf(run: RunHandle): Promise<string[]> {
  const kinds: string[] = [];
  for await (const event of run.events) kinds.push(event.kind === 'progress' ? event.phase : event.kind);
  return kinds;
}

/** Runs one job alone. */
function start(jobId: string, request: GenerationRequest): RunHandle {
  const [run] = engine.run([{ jobId, request, output }]);
  if (run === undefined) throw new Error('no handle');
  return run;
}

const reasonOf = (run: RunHandle) =>
  run.result.then(
    () => 'done',
    (error: InferenceError) => error.reason,
  );

describe('Engine', () => {
  it('starts, runs a job, tells its events in order and its times', async () => {
    await create().start();
    expect(engine.state).toBe('ready');
    expect(engine.info?.family).toBe('sdxl');
    const run = start('job', quick);
    expect(await eventsOf(run)).toEqual(['encode', 'prompt', 'denoise', 'denoise', 'decode', 'asset']);
    const { totalMs, denoiseMs } = await run.result;
    expect(totalMs).toBeGreaterThan(denoiseMs);
    expect(engine.residentBytes).toBeGreaterThan(20e6);
  });

  it('fails once, with one sentence, where the checkpoint is missing', async () => {
    await expect(create({}, '/nowhere').start()).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: '/nowhere does not exist',
    });
    expect(engine.state).toBe('failed');
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect([engine.state, engine.restarts, engine.pid]).toEqual(['failed', 0, undefined]);
  });

  it('fails once where the folder is no checkpoint', async () => {
    await expect(create({}, await tempFolder()).start()).rejects.toThrow(
      /model_index.json is missing; a diffusers-layout SDXL folder has it/,
    );
  });

  it('takes its programs with it when it is stopped or dies, even those that hang', async () => {
    const options = { entry: new URL('./fixtures/with-program.mjs', import.meta.url) };
    await create(options).start();
    const program = Number(engine.info?.unused[0]);
    expect(isAlive(program)).toBe(true);
    await engine.stop();
    await until(() => !isAlive(program));
    await create(options).start();
    const next = Number(engine.info?.unused[0]);
    process.kill(engine.pid ?? 0, 'SIGKILL');
    await until(() => !isAlive(next));
  });

  it('inherits no secrets of the environment', async () => {
    const secrets = {
      AUTH_TOKEN: 'a',
      SUPABASE_SERVICE_KEY: 'b',
      AWS_SECRET_ACCESS_KEY: 'c',
      REDIS_URL: 'redis://localhost',
      SOME_STORE: 'postgres://user:word@host/db',
      LD_LIBRARY_PATH: '/opt/cuda/lib64',
    };
    for (const [name, value] of Object.entries(secrets)) vi.stubEnv(name, value);
    try {
      await create({ entry: new URL('./fixtures/with-program.mjs', import.meta.url) }).start();
    } finally {
      vi.unstubAllEnvs();
    }
    expect(Object.keys(secrets).filter((name) => engine.info?.unused.includes(name))).toEqual(['LD_LIBRARY_PATH']);
  });

  it('is started again when no file descriptor was free, however often', async () => {
    const program = new URL('./fixtures/no-descriptors.mjs', import.meta.url).pathname;
    const { stdout } = await promisify(execFile)('bash', [
      '-c',
      `ulimit -n 64; exec "${process.execPath}" "${program}"`,
    ]);
    expect(stdout).toBe('ready\n');
  });

  it('gives up after five crashes in a row while loading', async () => {
    const options = { entry: new URL('./fixtures/crash-at-start.mjs', import.meta.url) };
    await expect(create(options).start()).rejects.toMatchObject({
      reason: 'ENGINE_CRASHED',
      message: expect.stringContaining('exited with code 3 while loading, 5 times in a row'),
    });
    expect(engine.restarts).toBe(4);
  });

  it('kill -9 under a job: a retryable error, then it is back by itself and works', async () => {
    await create().start();
    const run = start('job', slow);
    const { pid } = engine;
    for await (const _ of run.events) if (pid !== undefined && isAlive(pid)) process.kill(pid, 'SIGKILL');
    const error = await run.result.catch((caught: InferenceError) => caught);
    expect(error).toMatchObject({
      reason: 'ENGINE_CRASHED',
      retryable: true,
      message: 'the engine of model tiny was ended by SIGKILL; it restarts, try again',
    });
    await engine.whenReady();
    expect(engine.restarts).toBe(1);
    expect(engine.pid).not.toBe(pid);
    expect(await reasonOf(start('next', quick))).toBe('done');
  });

  it('ends a job between two runs when it is cancelled, and keeps the process', async () => {
    await create().start();
    const { pid } = engine;
    const run = start('job', { ...quick, steps: 1000 });
    for await (const event of run.events) if (event.kind === 'progress' && event.step === 3) run.cancel();
    expect(await reasonOf(run)).toBe('CANCELLED');
    expect([engine.pid, engine.state]).toEqual([pid, 'ready']);
    expect(await reasonOf(start('next', quick))).toBe('done');
  });

  it('ends a job inside a run when it is cancelled, and keeps the process', async () => {
    await create({ spec: specOf(inject('tinySdxl'), 'native') }).start();
    const { pid } = engine;
    const run = start('job', { ...slow, steps: 2 });
    const steps: number[] = [];
    for await (const event of run.events) {
      if (event.kind !== 'progress' || event.phase !== 'denoise') continue;
      steps.push(event.step);
      setTimeout(() => run.cancel(), 100);
    }
    // A step takes more than a second: without the end of its run, the second one would be done.
    expect(steps).toEqual([1]);
    expect(await reasonOf(run)).toBe('CANCELLED');
    expect([engine.pid, engine.state]).toEqual([pid, 'ready']);
    expect(await reasonOf(start('next', quick))).toBe('done');
  });

  it('falls back to the Node binding where koffi is missing, and says why', async () => {
    const lines: string[] = [];
    const log = pino({}, { write: (line: string) => lines.push(line) });
    const entry = new URL('./fixtures/without-koffi.mjs', import.meta.url);
    await create({ entry, log }).start();
    expect(await reasonOf(start('job', quick))).toBe('done');
    const logged = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(logged).toContainEqual(
      expect.objectContaining({
        msg: 'native runtime does not open: the Node binding is used',
        reason: 'the package koffi does not load',
      }),
    );
    expect(logged).toContainEqual(expect.objectContaining({ msg: 'engine ready', runtime: 'binding' }));
    await engine.stop();
    await expect(create({ entry, spec: specOf(inject('tinySdxl'), 'native') }).start()).rejects.toMatchObject({
      reason: 'PROVIDER_UNAVAILABLE',
    });
  });

  it('kills past the cancel bound, at once ready for a new process', async () => {
    await create({ cancelBoundMs: 50, spec: specOf(inject('tinySdxl'), 'binding') }).start();
    const { pid } = engine;
    const run = start('job', slow);
    for await (const event of run.events) {
      if (event.kind !== 'progress' || event.phase !== 'denoise') continue;
      // The last step is done: a moment later the decode blocks the process for seconds.
      setTimeout(() => run.cancel(new InferenceError('DEADLINE_EXCEEDED', 'too late')), 300);
    }
    expect(await reasonOf(run)).toBe('DEADLINE_EXCEEDED');
    await engine.whenReady();
    expect(engine.pid).not.toBe(pid);
  });

  it('kills a process that hangs, and restarts', async () => {
    await create({ hangTimeoutMs: 1000 }).start();
    const run = start('job', { ...quick, steps: 1000 });
    for await (const event of run.events) {
      if (event.kind === 'progress' && event.step === 2 && engine.pid !== undefined)
        process.kill(engine.pid, 'SIGSTOP');
    }
    expect(await reasonOf(run)).toBe('ENGINE_HUNG');
    await engine.whenReady();
    expect(await reasonOf(start('next', quick))).toBe('done');
  });

  it('refuses a second job while it runs one', async () => {
    await create().start();
    const run = start('job', quick);
    expect(() => start('other', quick)).toThrow('model tiny is busy, not ready for a job');
    await run.result;
  });

  it('is described before it is ready, and its description keeps what was measured while the next process loads', async () => {
    create();
    const seen: unknown[] = [];
    engine.onStateChange((state) => {
      if (engine.info !== undefined) seen.push([state, engine.info.nativeWidth, engine.info.memory !== undefined]);
    });
    const described = engine.whenDescribed();
    await engine.start();
    expect((await described).family).toBe('sdxl');
    if (engine.pid !== undefined) process.kill(engine.pid, 'SIGKILL');
    await until(() => engine.restarts === 1);
    await engine.whenReady();
    expect(seen).toEqual([
      ['starting', 64, false],
      ['ready', 64, true],
      ['restarting', 64, true],
      ['restarting', 64, true],
      ['ready', 64, true],
    ]);
  });

  it('is not described where it cannot start', async () => {
    create({}, '/nowhere');
    const described = engine.whenDescribed();
    await expect(engine.start()).rejects.toMatchObject({ reason: 'CHECKPOINT_INVALID' });
    await expect(described).rejects.toMatchObject({ reason: 'CHECKPOINT_INVALID' });
  });

  it('stops waiting for a start when told to', async () => {
    const started = create().start();
    const waiting = engine.whenReady(AbortSignal.abort(new InferenceError('CANCELLED', 'never mind')));
    await expect(waiting).rejects.toMatchObject({ reason: 'CANCELLED' });
    await started;
  });
});

describe('an engine process', () => {
  it('ends when its parent is killed, even in the middle of a run', async () => {
    create();
    const parent = spawn(
      process.execPath,
      [new URL('./fixtures/parent.mjs', import.meta.url).pathname, inject('tinySdxl')],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let child = 0;
    for await (const line of createInterface({ input: parent.stdout })) {
      // "<pid of the engine>" when its last step is done and the decode blocks it.
      child = Number(line);
      parent.kill('SIGKILL');
    }
    expect(child).toBeGreaterThan(0);
    await until(() => !isAlive(child));
  });
});

describe('createBackoff', () => {
  it('doubles up to the maximum, less a fifth at most, and starts anew', () => {
    const backoff = createBackoff({ initial: 100, max: 300 });
    for (const expected of [100, 200, 300, 300]) {
      const delay = backoff.next();
      expect(delay).toBeGreaterThanOrEqual(expected * 0.8);
      expect(delay).toBeLessThanOrEqual(expected);
    }
    backoff.reset();
    expect(backoff.next()).toBeLessThanOrEqual(100);
  });
});
