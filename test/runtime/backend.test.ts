import { existsSync } from 'node:fs';
import { InferenceSession } from 'onnxruntime-node';
import { afterEach, describe, expect, inject, it, vi } from 'vitest';
import { loadWanNetworks } from '../../src/pipelines/wan/networks.js';
import { openBackend } from '../../src/runtime/backend.js';

/** Chromium's Vulkan driver on the CPU: WebGPU without a GPU. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** Counts the sessions that the binding opens from now on, by whether they probe attention. */
function countSessions(): { probes: number; others: number } {
  const count = { probes: 0, others: 0 };
  const create = InferenceSession.create.bind(InferenceSession);
  vi.spyOn(InferenceSession, 'create').mockImplementation(((model: Uint8Array, options: object) => {
    count[Buffer.from(model).includes('op-probe') ? 'probes' : 'others'] += 1;
    return create(model, options);
  }) as typeof InferenceSession.create);
  return count;
}

/** Loads a WAN and encodes prompts; its text encoder is loaded for each of them. */
async function encodePrompts(backend: Awaited<ReturnType<typeof openBackend>>): Promise<void> {
  const networks = await loadWanNetworks({ path: inject('tinyWan'), backend });
  for (const prompt of ['a red circle', 'a blue square']) {
    await networks.prompts.encode(prompt);
    await networks.prompts.releaseIfIdle();
  }
  await networks.release();
}

describe('openBackend()', () => {
  it('opens no session for a provider whose fused attention is right', async () => {
    const count = countSessions();
    const backend = await openBackend({ provider: 'cpu', threads: 2, precision: 'fp16', runtime: 'binding' });
    expect(backend).toMatchObject({ provider: 'cpu', deviceId: 0, threads: 2 });
    // The CPU's half precision is float32 between casts: it is not used even where it is asked for.
    expect(backend.dialectsOf(['f16', 'bf16'])).toMatchObject([{ attention: 'fused', compute: 'f32' }]);
    expect(count).toEqual({ probes: 0, others: 0 });
  });

  it.skipIf(!existsSync(SWIFTSHADER))(
    'probes attention on WebGPU once, however often the text encoder is loaded',
    async () => {
      // SwiftShader computes fused attention wrongly.
      vi.stubEnv('VK_DRIVER_FILES', SWIFTSHADER);
      vi.stubEnv('XDG_RUNTIME_DIR', process.env.XDG_RUNTIME_DIR ?? '/tmp');
      const count = countSessions();
      const backend = await openBackend({ provider: 'webgpu', runtime: 'binding' });
      expect(backend.dialectsOf([])).toMatchObject([{ attention: 'chunked', compute: 'f32' }]);
      await encodePrompts(backend);
      // One program of attention, then the sums.
      expect(count.probes).toBe(2);
      // The transformer, both decoders, and the text encoder twice.
      expect(count.others).toBe(5);
    },
    600_000,
  );
});
