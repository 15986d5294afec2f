/**
 * npm run bench:networks [-- --sdxl FOLDER] [--side 256] [--threads 1] [--device cpu]
 *
 * CPU seconds (user + system of the process) of each phase of one picture, and what loading takes. Without --sdxl it makes a
 * model of the released size from hash weights (6.9 GB in a temporary folder, a minute) and needs 15 GB of memory.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/index.js';
import { writeFullSizeSdxl } from '../../src/synthetic/sdxl.js';

const { values: options } = parseArgs({
  options: {
    sdxl: { type: 'string' },
    side: { type: 'string', default: '256' },
    threads: { type: 'string', default: '1' },
    device: { type: 'string', default: 'cpu' },
  },
});
const { device } = options;
if (device !== 'cpu' && device !== 'webgpu' && device !== 'cuda')
  throw new Error(`device ${device} must be cpu, webgpu or cuda`);

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const path = options.sdxl ?? (await writeFullSizeSdxl(join(folder, 'sdxl')));
  print(
    `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${device}, ${options.threads} threads; ${options.sdxl ?? 'released size, hash weights'}`,
  );
  await measure(path, device);
} finally {
  await rm(folder, { recursive: true });
}

async function measure(path: string, on: 'cpu' | 'webgpu' | 'cuda'): Promise<void> {
  const lap = stopwatch();
  const pipeline = await createSdxlPipeline({ path, device: on, threads: Number(options.threads) });
  print(`load                  ${lap()}`);
  print(`resident, peak        ${await memory('VmRSS')}, ${await memory('VmHWM')}`);
  const side = Number(options.side);
  const request = {
    prompt: 'a red circle on a blue background',
    negativePrompt: 'blurry',
    width: side,
    height: side,
    steps: 4,
    guidanceScale: 6,
    scheduler: 'euler',
    seeds: [1],
  };
  lap();
  for await (const event of pipeline.generate(request, new AbortController().signal)) {
    if (event.kind === 'progress') print(`${`${event.phase} ${event.step}/${event.total}`.padEnd(20)}  ${lap()}`);
  }
  print(`resident, peak        ${await memory('VmRSS')}, ${await memory('VmHWM')}`);
  await pipeline.dispose();
}

function stopwatch(): () => string {
  let cpu = process.cpuUsage();
  let wall = performance.now();
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    const seconds = (performance.now() - wall) / 1000;
    cpu = process.cpuUsage();
    wall = performance.now();
    return `${((user + system) / 1e6).toFixed(2)} CPU s, ${seconds.toFixed(2)} s`;
  };
}

async function memory(field: 'VmRSS' | 'VmHWM'): Promise<string> {
  const status = await readFile('/proc/self/status', 'utf8');
  const kilobytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
  return `${(Number(kilobytes) / 2 ** 20).toFixed(2)} GiB`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
