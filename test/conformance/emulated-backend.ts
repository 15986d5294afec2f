import type { HalfType } from '../../src/graph/dialect.js';
import type { Backend } from '../../src/runtime/backend.js';
import type { Runtime } from '../../src/runtime/runtime.js';

/** The CPU, with every network in one half type: each op in float32, its result rounded. Also those that keep to float32 otherwise. */
export function emulatedBackend(compute: HalfType, runtime: Runtime): Backend {
  const dialects = [{ attention: 'fused', compute, emulated: true }] as const;
  return { provider: 'cpu', deviceId: 0, threads: 1, runtime, dialectsOf: () => dialects };
}
