import { type Dialect, defaultDialect } from '../../src/graph/dialect.js';
import type { Backend } from '../../src/runtime/backend.js';
import { openRuntime } from '../../src/runtime/runtime.js';

const runtime = await openRuntime();

/** One thread of the CPU: test files run side by side. */
export const cpuBackend: Backend = cpuBackendOf(defaultDialect);

/** The same with other graphs, for every network alike. */
export function cpuBackendOf(...dialects: [Dialect, ...Dialect[]]): Backend {
  return { provider: 'cpu', deviceId: 0, threads: 1, runtime, dialectsOf: () => dialects };
}
