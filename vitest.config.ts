import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['./test/global-setup.ts'],
    // onnxruntime-node is a native library with threads of its own: one process a file, two at a time.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Servers of tests that run at the same time do not compete for one address.
    env: { METRICS_LISTEN: 'off', BRIDGE_METRICS_LISTEN: 'off' },
    reporters: ['default', './test/summary-reporter.ts'],
  },
});
