import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take minutes. They begin first, so that none of them runs alone at the end. */
const LONG = /(goldens-webgpu|halves|cli\/cli|web\/page|demo-model|server\/loras)\.test\.ts$/;

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return [
      ...sorted.filter(({ moduleId }) => LONG.test(moduleId)),
      ...sorted.filter(({ moduleId }) => !LONG.test(moduleId)),
    ];
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['./test/global-setup.ts'],
    // onnxruntime-node is a native library with threads of its own: one process a file. Three at a time keep two cores busy, as tests of
    // servers wait a lot.
    pool: 'forks',
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Servers of tests that run at the same time do not compete for one address.
    env: { METRICS_LISTEN: 'off', BRIDGE_METRICS_LISTEN: 'off' },
    reporters: ['default', './test/summary-reporter.ts'],
  },
});
