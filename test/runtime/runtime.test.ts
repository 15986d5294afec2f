import { afterEach, describe, expect, it, vi } from 'vitest';
import { Graph } from '../../src/graph/graph.js';
import { add } from '../../src/graph/ops.js';
import { cudaOptions } from '../../src/runtime/native/session-options.js';
import { createSession, type SessionPlan } from '../../src/runtime/session.js';

/** The module anew: the library is opened once for a process. */
async function openRuntime(...args: Parameters<typeof import('../../src/runtime/runtime.js')['openRuntime']>) {
  const { openRuntime: open } = await import('../../src/runtime/runtime.js');
  return open(...args);
}

afterEach(() => {
  vi.doUnmock('koffi');
  vi.resetModules();
});

const withoutKoffi = () =>
  vi.doMock('koffi', () => {
    throw new Error("Cannot find package 'koffi'");
  });

describe('openRuntime()', () => {
  it('takes the native runtime unless another is named', async () => {
    expect((await openRuntime()).name).toBe('native');
    expect((await openRuntime('native')).name).toBe('native');
    expect(await openRuntime('binding')).toEqual({ name: 'binding' });
  });

  it('falls back to the binding where koffi is missing, with the reason, and sessions run', async () => {
    withoutKoffi();
    const runtime = await openRuntime('auto');
    expect(runtime).toEqual({ name: 'binding', reason: 'the package koffi does not load' });
    const graph = new Graph('sum', { attention: 'decomposed', compute: 'f32' });
    const x = graph.floatInput('x', [2]);
    graph.output('y', add(graph, x, x));
    const session = await createSession(graph, { provider: 'cpu', deviceId: 0, threads: 1, runtime });
    expect(await session.run({ x: { data: Float32Array.of(1, 2), shape: [2] } })).toEqual({ y: Float32Array.of(2, 4) });
    await session.release();
  });

  it('refuses what cannot be had, with the remedy', async () => {
    await expect(openRuntime('binding', { providerLibrary: '/a.so' })).rejects.toThrow(
      'PROVIDER_LIBRARY /a.so needs the native runtime; set RUNTIME=native',
    );
    withoutKoffi();
    await expect(openRuntime('native')).rejects.toThrow(
      'the native runtime does not open: the package koffi does not load; run npm ci again, or set RUNTIME=binding',
    );
    await expect(openRuntime('auto', { providerLibrary: '/a.so' })).rejects.toMatchObject({
      reason: 'PROVIDER_UNAVAILABLE',
    });
  });
});

describe('cudaOptions()', () => {
  const plan: SessionPlan = {
    provider: 'cuda',
    deviceId: 1,
    threads: 0,
    model: new Uint8Array(),
    inputs: [],
    outputs: [],
    holds: new Map(),
    configEntries: {},
  };

  it.each([
    ['the card', {}, { device_id: '1', use_tf32: '1', cudnn_conv_algo_search: 'HEURISTIC' }],
    ['TF32', { tf32: false }, { use_tf32: '0' }],
    ['a limit', { memoryLimitBytes: 2 ** 33 }, { gpu_mem_limit: '8589934592' }],
  ])('gives %s', (_, change, expected) => {
    expect(cudaOptions({ ...plan, ...change })).toMatchObject(expected);
  });
});
