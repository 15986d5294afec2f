import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take minutes. They begin first, so that none of them runs alone at the end. */
const LONG = /(goldens-webgpu|cli\/cli|web\/page|demo-model|server\/loras)\.test\.ts$/;
/** Rooms whose tests neither load a native library that stays nor measure their own process. */
const SHARING = [
  ...['cli', 'client', 'docs', 'policy', 'queue-bridge', 'random', 'references', 'schedulers', 'server', 'std'],
  ...['tokenizer', 'web', 'weights'],
].map((room) => `test/${room}/**/*.test.ts`);

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const place = ({ moduleId, project }: TestSpecification) =>
      LONG.test(moduleId) ? 0 : project.name === 'sharing' ? 1 : 2;
    return sorted.toSorted((a, b) => place(a) - place(b));
  }
}

const common = {
  // Servers of tests that run at the same time do not compete for one address.
  env: { METRICS_LISTEN: 'off', BRIDGE_METRICS_LISTEN: 'off' },
  testTimeout: 120_000,
  hookTimeout: 120_000,
  pool: 'forks',
} as const;

export default defineConfig({
  test: {
    globalSetup: ['./test/global-setup.ts'],
    // Three at a time keep two cores busy, as tests of servers wait a lot.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    reporters: ['default', './test/summary-reporter.ts'],
    projects: [
      // Files after one another in a process: each would import a server again, which takes more than a second.
      { test: { ...common, name: 'sharing', include: SHARING, isolate: false } },
      // onnxruntime-node is a native library with threads of its own: one process a file.
      { test: { ...common, name: 'alone', include: ['test/**/*.test.ts'], exclude: SHARING } },
    ],
  },
});
