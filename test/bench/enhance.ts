/**
 * npm run bench -- enhance [--qwen PATH] [--wan PATH] [--device cpu] [--threads 1] [--runs 10] [--cycles 3]
 *
 * Runs the server as its users do, with WAN resident and Qwen on demand, and measures from outside: loading to the first token,
 * tokens a second, the memory of both before, during and after, and what an enhanced job takes over a plain one beside its
 * tokens' time. Without --qwen and --wan the models are tiny ones of hash weights.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DarkroomClient, enhance, generate } from '../../src/client/client.js';
import { type Enhancement, type JobMetadata, JobType } from '../../src/gen/darkroom/v1/job.js';
import { writeSyntheticQwen } from '../../src/synthetic/qwen.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { quantile, status, withServer } from './served.js';
import { figure, print } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    qwen: { type: 'string' },
    wan: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    threads: { type: 'string', default: '1' },
    runs: { type: 'string', default: '10' },
    cycles: { type: 'string', default: '3' },
  },
});
const PROMPT = 'a lighthouse on a cliff at dawn';
const runs = Number(options.runs);

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const qwen = options.qwen ?? (await writeSyntheticQwen(join(folder, 'qwen'), 'qwen-tiny'));
  const wan = options.wan ?? (await writeSyntheticWan(join(folder, 'wan'), 'wan-tiny'));
  const machine = `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${options.device}, ${options.threads} threads`;
  print(`${machine}; ${options.qwen ?? 'qwen-tiny, hash weights'}; ${options.wan ?? 'wan-tiny, hash weights'}`);
  const args = ['--wan', wan, '--qwen', qwen, '--device', options.device];
  const variables = {
    ENGINE_THREADS: options.threads,
    QWEN_IDLE_MS: '600000',
    QWEN_CACHE: join(folder, 'cache'),
    ENHANCE_TIMEOUT_MS: '600000',
    MEMORY_RESERVE_BYTES: '0',
  };
  await withServer(args, variables, async (client) => {
    await measureCycles(client);
    await measureTokens(client);
    await measureJobs(client);
  });
} finally {
  await rm(folder, { recursive: true });
}

/** Load, write, unload: the first one converts. */
async function measureCycles(client: DarkroomClient): Promise<void> {
  await memory(client, 'before');
  for (let cycle = 0; cycle < Number(options.cycles); cycle += 1) {
    const asked = performance.now();
    let firstToken = 0;
    for await (const { event } of enhance(client, { prompt: PROMPT, maxTokens: 32, seed: 1n })) {
      if (event?.event?.$case === 'textDelta') firstToken ||= performance.now() - asked;
    }
    const how = cycle === 0 ? ', converted first' : '';
    figure(`cold${how}: request to first token`, firstToken / 1000, 's');
    await memory(client, 'loaded');
    await new Promise<void>((resolve, reject) =>
      client.models.unloadModel({ name: 'qwen' }, (error) => (error ? reject(error) : resolve())),
    );
    await memory(client, 'unloaded');
  }
}

async function measureTokens(client: DarkroomClient): Promise<void> {
  const all: Enhancement[] = [];
  for (let run = -1; run < runs; run += 1) {
    for await (const { event } of enhance(client, { prompt: PROMPT, maxTokens: 128, seed: BigInt(run + 2) })) {
      const done = event?.event?.$case === 'completed' ? event.event.value.metadata?.enhancement : undefined;
      if (done !== undefined && run >= 0) all.push(done);
    }
  }
  const rates = all.map(
    ({ newTokens, totalSeconds, firstTokenSeconds }) => (newTokens - 1) / (totalSeconds - firstTokenSeconds),
  );
  figure('warm: first token', 1000 * median(all.map(({ firstTokenSeconds }) => firstTokenSeconds)), 'ms');
  figure('warm: tokens a second', median(rates.filter(Number.isFinite)), '');
}

/** In turn, so that other work on the machine hits both: from the call to the last event. */
async function measureJobs(client: DarkroomClient): Promise<void> {
  const size = { prompt: PROMPT, width: 64, height: 64, steps: 4 };
  const added: number[] = [];
  for (let run = -2; run < runs; run += 1) {
    const seed = BigInt(run + 5);
    const enhanced = await timed(client, { ...size, seed, jobType: JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED });
    const prompt = enhanced.metadata?.enhancedPrompt ?? PROMPT;
    // The same prompt, so that both encode the same text; another seed, so that none is just a repetition.
    const plain = await timed(client, { ...size, prompt: `${prompt} `, seed, jobType: JobType.JOB_TYPE_IMAGE_FAST });
    const tokensMs = 1000 * (enhanced.metadata?.enhancement?.totalSeconds ?? Number.NaN);
    if (run >= 0) added.push(enhanced.ms - plain.ms - tokensMs);
  }
  figure("an enhanced job's time over a plain one's and its tokens'", median(added), 'ms', 'to hold: 50');
}

async function timed(
  client: DarkroomClient,
  request: Parameters<typeof generate>[1],
): Promise<{ readonly ms: number; readonly metadata: JobMetadata | undefined }> {
  const begin = performance.now();
  let metadata: JobMetadata | undefined;
  for await (const { event } of generate(client, request)) {
    if (event?.$case === 'completed') metadata = event.value.metadata;
  }
  return { ms: performance.now() - begin, metadata };
}

/** Of the server, of both engines, and what the machine has left. */
async function memory(client: DarkroomClient, when: string): Promise<void> {
  const { residentBytes, models } = await status(client);
  const mebibytes = (bytes: bigint) => `${(Number(bytes) / 2 ** 20).toFixed(0)} MiB`;
  const engines = models.map(({ name, residentBytes: bytes }) => `${name} ${mebibytes(bytes)}`);
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1];
  const left = (Number(available) / 1024).toFixed(0);
  print(
    `${`resident, ${when}`.padEnd(58)} server ${mebibytes(residentBytes)}, ${engines.join(', ')}; ${left} MiB available`,
  );
}

function median(numbers: readonly number[]): number {
  return quantile(numbers, 0.5);
}
