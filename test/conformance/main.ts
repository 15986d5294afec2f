import { parseArgs } from 'node:util';
import { openBackend } from '../../src/runtime/backend.js';
import { runtimeNames } from '../../src/runtime/runtime-names.js';
import type { Outcome } from './report.js';
import { runGoldens } from './run.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: 'string', default: 'cpu' },
    runtime: { type: 'string', default: 'auto' },
    only: { type: 'string' },
  },
});
const { device } = values;
const runtime = runtimeNames.find((name) => name === values.runtime);
if (
  positionals.length === 0 ||
  runtime === undefined ||
  (device !== 'cpu' && device !== 'webgpu' && device !== 'cuda')
) {
  process.stderr.write(
    'usage: npm run conformance -- FOLDER [FOLDER …] [--device cpu|webgpu|cuda] [--runtime auto|native|binding] [--only REGEXP]\n',
  );
  process.exit(2);
}

// Goldens are float32, which TF32 is not.
const backend = await openBackend({ provider: device, runtime, tf32: false });
const labels: Readonly<Record<Outcome, string>> = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' };
const count = { passed: 0, failed: 0, skipped: 0 };
for (const folder of positionals) {
  process.stdout.write(`${folder} on ${device}, ${backend.runtime.name} runtime\n`);
  for await (const { name, outcome, detail } of runGoldens(folder, {
    backend,
    ...(values.only && { only: new RegExp(values.only) }),
  })) {
    count[outcome] += 1;
    process.stdout.write(`${labels[outcome]} ${name.padEnd(24)} ${detail}\n`);
  }
}
process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`);
process.exitCode = count.failed > 0 || count.passed + count.skipped === 0 ? 1 : 0;
