import { parseArgs } from 'node:util';
import { openBackend } from '../../src/runtime/backend.js';
import { openRuntime } from '../../src/runtime/runtime.js';
import { runtimeNames } from '../../src/runtime/runtime-names.js';
import { emulatedBackend } from './emulated-backend.js';
import type { Outcome } from './report.js';
import { runGoldens } from './run.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: 'string', default: 'cpu' },
    runtime: { type: 'string', default: 'auto' },
    precision: { type: 'string', default: 'fp32' },
    emulated: { type: 'boolean', default: false },
    tf32: { type: 'boolean', default: false },
    only: { type: 'string' },
  },
});
const { device, precision, emulated } = values;
const runtime = runtimeNames.find((name) => name === values.runtime);
const isKnown = runtime !== undefined && (device === 'cpu' || device === 'webgpu' || device === 'cuda');
const half = precision === 'fp16' || precision === 'bf16' ? precision : undefined;
if (positionals.length === 0 || !isKnown || (half === undefined && (precision !== 'fp32' || emulated))) {
  process.stderr.write(
    'usage: npm run conformance -- FOLDER [FOLDER …] [--device cpu|webgpu|cuda] [--runtime auto|native|binding] [--precision fp32|fp16|bf16 [--emulated]] [--tf32] [--only REGEXP]\n',
  );
  process.exit(2);
}

const backend =
  half !== undefined && emulated
    ? emulatedBackend(half === 'fp16' ? 'f16' : 'bf16', await openRuntime(runtime))
    : // Goldens are float32, which TF32 is not: with it on they show what it costs.
      await openBackend({ provider: device, runtime, tf32: values.tf32, precision: half ?? 'fp32' });
const labels: Readonly<Record<Outcome, string>> = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' };
const count = { passed: 0, failed: 0, skipped: 0 };
for (const folder of positionals) {
  process.stdout.write(
    `${folder} on ${device} in ${emulated ? 'emulated ' : ''}${precision}, ${backend.runtime.name} runtime\n`,
  );
  for await (const { name, outcome, detail } of runGoldens(folder, {
    backend,
    half: half === 'fp16' && device !== 'cpu' ? 'coarse' : half,
    ...(values.only && { only: new RegExp(values.only) }),
  })) {
    count[outcome] += 1;
    process.stdout.write(`${labels[outcome]} ${name.padEnd(24)} ${detail}\n`);
  }
}
process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`);
process.exitCode = count.failed > 0 || count.passed + count.skipped === 0 ? 1 : 0;
