import { defaultDialect } from '../../src/graph/dialect.js';
import type { Backend } from '../../src/runtime/backend.js';
import { openRuntime } from '../../src/runtime/runtime.js';

/** One thread of the CPU: test files run side by side. */
export const cpuBackend: Backend = {
  provider: 'cpu',
  deviceId: 0,
  threads: 1,
  dialect: defaultDialect,
  runtime: await openRuntime(),
};
