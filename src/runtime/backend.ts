import type { Provider } from '../device.js';
import type { Dialect } from '../graph/dialect.js';
import { isFusedAttentionRight } from './attention-probe.js';
import { openRuntime, type Runtime, type RuntimeOptions } from './runtime.js';
import type { RuntimeName } from './runtime-names.js';
import type { SessionDevice } from './session.js';

/** The device of all sessions of an engine process, and the dialect of their graphs. Chosen once, when the engine starts. */
export interface Backend extends SessionDevice {
  readonly dialect: Dialect;
  readonly runtime: Runtime;
}

export interface BackendOptions extends RuntimeOptions {
  readonly provider: Provider;
  /** Omitted: 0, the first card. */
  readonly deviceId?: number | undefined;
  /** Omitted: 0. */
  readonly threads?: number | undefined;
  /** Omitted: `auto`. */
  readonly runtime?: RuntimeName | undefined;
  /** As `SessionDevice` has it. */
  readonly tf32?: boolean | undefined;
}

/**
 * Chooses the dialect of a provider. WebGPU's attention program returns wrong numbers on some adapters without an error (seen on
 * SwiftShader from 64 tokens on), so fused attention is used there only if a probe measures it right. The probe opens a session.
 */
export async function openBackend({
  provider,
  deviceId = 0,
  threads = 0,
  runtime,
  tf32,
  ...options
}: BackendOptions): Promise<Backend> {
  const device = { provider, deviceId, threads, tf32, runtime: await openRuntime(runtime, options) };
  const isFused = provider !== 'webgpu' || (await isFusedAttentionRight(device));
  return { ...device, dialect: { attention: isFused ? 'fused' : 'decomposed', compute: 'f32' } };
}
