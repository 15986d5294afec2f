import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { createEngine } from '../../src/engine/engine.js';
import type { LoadProgress, TextWork } from '../../src/engine/messages.js';
import { type EngineLease, OnDemandEngine } from '../../src/engine/on-demand-engine.js';
import { builtInTemplate } from '../../src/enhancer/template.js';
import { InferenceError } from '../../src/errors.js';
import { isAlive, silent, textEngineEntry, until } from '../support/serving.js';

let cacheFolder: string;
beforeAll(async () => {
  cacheFolder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
});
afterAll(() => rm(cacheFolder, { recursive: true }));

let engine: OnDemandEngine<TextWork>;
afterEach(() => engine.stop());

function create({
  path = inject('tinyQwen'),
  idleMs = 60_000,
  grant = async () => ({ settle: () => undefined }),
}: {
  path?: string;
  idleMs?: number;
  grant?: () => Promise<{ settle(): void }>;
} = {}): OnDemandEngine<TextWork> {
  const source = { path, type: 'q8_0', cacheFolder, template: builtInTemplate, parallel: 2 } as const;
  const spec = { model: 'qwen', family: 'qwen', source, device: 'cpu', threads: 1 } as const;
  const supervised = createEngine<TextWork>({ spec, log: silent, entry: textEngineEntry, kind: 'on-demand' });
  engine = new OnDemandEngine({ engine: supervised, grant, idleMs, log: silent });
  return engine;
}

const never = new AbortController().signal;
const take = (onLoading: (progress: LoadProgress | undefined) => void = () => undefined, signal = never) =>
  engine.acquire(signal, onLoading);

let jobs = 0;
function start(use: EngineLease<TextWork>, maxTokens = 8) {
  jobs += 1;
  const request = { prompt: 'a lighthouse', maxTokens, temperature: 0.7, topP: 0.9, seed: 1 };
  return use.run({ jobId: `job-${jobs}`, request });
}

describe('OnDemandEngine', () => {
  it('loads with its first user, converting first, and the second waits for the same loading', async () => {
    create();
    expect(engine.engine.pid).toBeUndefined();
    const stages: (string | undefined)[] = [];
    const [one, two] = await Promise.all([take((progress) => stages.push(progress?.stage)), take()]);
    expect(stages[0]).toBeUndefined();
    expect(stages).toContain('converting');
    expect(stages.at(-1)).toBe('loading');
    const results = await Promise.all([start(one).result, start(two).result]);
    expect(results.map(({ newTokens }) => newTokens)).toEqual([8, 8]);
    expect(engine.engine.restarts).toBe(0);
    one.release();
    two.release();
  });

  it('ends its process when it was idle for long enough, and not while it is used', async () => {
    create({ idleMs: 300 });
    const use = await take();
    const { pid = 0 } = engine.engine;
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(isAlive(pid)).toBe(true);
    use.release();
    await until(() => !isAlive(pid));
    expect(engine.engine.state).toBe('stopped');
    (await take()).release();
    expect(engine.engine.pid).not.toBe(pid);
  });

  it('unloads once its users are done; who comes meanwhile gets a new process', async () => {
    create();
    const use = await take();
    const { pid = 0 } = engine.engine;
    const unloaded = engine.unload();
    const next = take();
    expect(isAlive(pid)).toBe(true);
    await start(use).result;
    use.release();
    await unloaded;
    expect(isAlive(pid)).toBe(false);
    const again = await next;
    expect((await start(again).result).newTokens).toBe(8);
    again.release();
  });

  it('kill -9: a retryable error for what it wrote, and the next user loads it anew', async () => {
    create();
    const use = await take();
    const run = start(use, 512);
    for await (const _ of run.events) process.kill(engine.engine.pid ?? 0, 'SIGKILL');
    await expect(run.result).rejects.toMatchObject({ reason: 'ENGINE_CRASHED', retryable: true });
    use.release();
    const again = await take();
    expect((await start(again).result).newTokens).toBe(8);
    again.release();
  });

  it('tells why it cannot be loaded, and does not try for every prompt', async () => {
    let grants = 0;
    const failing = create({
      path: '/nowhere.gguf',
      grant: async () => {
        grants += 1;
        return { settle: () => undefined };
      },
    });
    for (let i = 0; i < 3; i += 1) {
      await expect(failing.acquire(never, () => undefined)).rejects.toMatchObject({
        reason: 'CHECKPOINT_INVALID',
        message: '/nowhere.gguf does not exist or cannot be read',
      });
    }
    expect(grants).toBe(1);
  });

  it('does not load without memory, and tries again for the next user', async () => {
    let hasRoom = false;
    create({
      grant: async () => {
        if (hasRoom) return { settle: () => undefined };
        throw new InferenceError('OUT_OF_MEMORY', 'no room');
      },
    });
    await expect(take()).rejects.toMatchObject({ reason: 'OUT_OF_MEMORY' });
    expect(engine.engine.pid).toBeUndefined();
    hasRoom = true;
    (await take()).release();
  });

  it('lets go of a user that gives up while it loads, and goes on loading for the others', async () => {
    create();
    const abort = new AbortController();
    const gone = take(() => abort.abort(new Error('gone')), abort.signal);
    const stays = take();
    await expect(gone).rejects.toThrow('gone');
    (await stays).release();
  });

  it('leaves nothing behind over ten cycles of loading and unloading', async () => {
    create();
    const pids = new Set<number>();
    const descriptors: number[] = [];
    for (let cycle = 0; cycle < 10; cycle += 1) {
      const use = await take();
      await start(use).result;
      pids.add(engine.engine.pid ?? 0);
      use.release();
      await engine.unload();
      descriptors.push((await readdir('/proc/self/fd')).length);
    }
    expect(pids.size).toBe(10);
    expect([...pids].filter(isAlive)).toEqual([]);
    expect(descriptors.at(-1)).toBe(descriptors[1]);
  });
});
