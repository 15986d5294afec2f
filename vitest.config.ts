import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take minutes. They begin first, so that none of them runs alone at the end. */
const LONG = /(goldens-webgpu|cli\/cli|web\/page|demo-model|server\/loras)\.test\.ts$/;
/** Files that share a process and take long. Vitest puts small files last, and these are small. */
const LONG_SHARING = /(fuzz\/fuzz|scripts\/package|faults\/[^/]+)\.test\.ts$/;
/** Files that may run in a process that ran others: they leave nothing there, and measure nothing of it. */
const SHARING = [
  ...['cli', 'client', 'deploy', 'docs', 'families', 'faults', 'fuzz', 'graph', 'media', 'observe', 'policy'],
  ...['queue-bridge', 'random', 'references', 'schedulers', 'scripts', 'semantic', 'server', 'std', 'storage'],
  ...['synthetic', 'tokenizer', 'web', 'weights'],
].map((room) => `test/${room}/**/*.test.ts`);
SHARING.push('test/pipelines/**/!(networks).test.ts');

/** Files that share processes come last: so no worker ends between two of them, and many short files end the run. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const place = ({ moduleId, project }: TestSpecification) => {
      if (LONG.test(moduleId)) return 0;
      if (project.name !== 'sharing') return 1;
      return LONG_SHARING.test(moduleId) ? 2 : 3;
    };
    return sorted.toSorted((a, b) => place(a) - place(b));
  }
}

const common = {
  // Servers of tests that run at the same time do not compete for one address.
  // ONNX Runtime tells its maker nothing of them: some open sessions themselves.
  env: { METRICS_LISTEN: 'off', BRIDGE_METRICS_LISTEN: 'off', ORT_DISABLE_TELEMETRY: '1' },
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
      // Files after one another in a process: each would import a server or the pipelines again, which takes a second or two.
      { test: { ...common, name: 'sharing', include: SHARING, isolate: false } },
      // One process a file: these stub what a process has, measure it, or load drivers and llama.cpp.
      { test: { ...common, name: 'alone', include: ['test/**/*.test.ts'], exclude: SHARING } },
    ],
  },
});
