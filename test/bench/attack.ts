/**
 * npm run bench -- attack [--seconds 10]
 *
 * Attacks a server with the tiny SDXL and measures it from outside meanwhile, from a process of its own: latency of health checks and
 * resident memory, and what each attack costs the server. Each has a server of its own and is repeated for some seconds.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client, credentials } from '@grpc/grpc-js';
import { connect, type DarkroomClient, generate } from '../../src/client/client.js';
import { ListJobsRequest } from '../../src/gen/darkroom/v1/job_service.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import type { ProbeSource, Seen } from './health-probe.js';
import { quantile, ready, startServer } from './served.js';
import { print } from './stopwatch.js';

const MB = 1024 * 1024;
/** Bounds on the 99th percentile of health checks and on resident memory. */
const MAX_P99_MS = 20;
const MAX_BYTES = 400 * MB;
const GENERATE = '/darkroom.v1.InferenceService/Generate';
const JOBS = 1000;

const { values: options } = parseArgs({ options: { seconds: { type: 'string', default: '10' } } });
const seconds = Number(options.seconds);

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
let address = '';
let client: DarkroomClient;
try {
  const model = await writeTinySdxl(join(folder, 'tiny-sdxl'));
  print(
    `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, load ${loadavg()[0]?.toFixed(1)}, ${seconds} s for each`,
  );
  const references = Buffer.alloc(31 * MB, Buffer.from([0x8a, 0x01, 0x00]));
  const nothing = () => sleep(100);
  await measure(model, 'nothing', nothing);
  await measure(model, 'prompt of 64 kB of LoRA signs', () => run({ prompt: ' <lora:a:1'.repeat(6500) }));
  await measure(model, '31 MB of small messages in a request', () => send(references, false));
  await measure(model, 'the same in gzip', () => send(references, true));
  await measure(model, '2 MB of reflection requests, unread', floodReflection);
  await measure(model, `50 times ListJobs of ${JOBS} jobs`, () => listJobs(50), endJobs);
} finally {
  await rm(folder, { recursive: true });
}

/** Attacks a server of its own. */
async function measure(
  model: string,
  what: string,
  attack: () => Promise<unknown>,
  prepare: () => Promise<void> = async () => undefined,
): Promise<void> {
  const variables = { LIMIT_QUEUE: String(2 * JOBS) };
  const started = await startServer(['--sdxl', model, '--device', 'cpu'], variables);
  const { server } = started;
  address = started.address;
  client = connect(address);
  try {
    await ready(client);
    await prepare();
    const source: ProbeSource = { address, pid: server.pid ?? 0 };
    const probe = fork(new URL('./health-probe.js', import.meta.url), [JSON.stringify(source)]);
    const seen = async (): Promise<Seen> => {
      probe.send('');
      const [message] = await once(probe, 'message');
      return message;
    };
    await row(what, server.pid ?? 0, seen, attack);
    probe.kill();
  } finally {
    client.close();
    server.kill('SIGTERM');
    await once(server, 'exit');
  }
}

/** Repeats an attack and prints what was seen meanwhile. */
async function row(
  what: string,
  pid: number,
  seen: () => Promise<Seen>,
  attack: () => Promise<unknown>,
): Promise<void> {
  await seen();
  const before = cpuMs(pid);
  let times = 0;
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; times += 1) await attack();
  const { latencies, peakBytes } = await seen();
  const cpu = `server ${((cpuMs(pid) - before) / times).toFixed(0)} CPU ms each`;
  const p99 = quantile(latencies, 0.99);
  const isHeld = p99 < MAX_P99_MS && peakBytes < MAX_BYTES;
  const figures = `p50 ${quantile(latencies, 0.5).toFixed(1)}, p99 ${p99.toFixed(1)}, max ${Math.max(...latencies).toFixed(0)} ms`;
  print(
    `${what.padEnd(40)} ${String(times).padStart(5)} times; health ${figures} over ${latencies.length}; resident ${(peakBytes / MB).toFixed(0)} MiB; ${cpu}${isHeld ? '' : '; bound exceeded'}`,
  );
}

/** User and system time of a process, all threads, in ms. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name may have blanks; the state follows it.
  const [user, system] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number);
  return 10 * ((user ?? 0) + (system ?? 0));
}

async function run(request: Parameters<typeof generate>[1]): Promise<void> {
  try {
    for await (const _ of generate(client, { width: 64, height: 64, steps: 1, ...request }));
  } catch {
    // Refused, as it must be.
  }
}

function send(bytes: Buffer, isCompressed: boolean): Promise<void> {
  const raw = new Client(address, credentials.createInsecure(), {
    'grpc.max_send_message_length': -1,
    ...(isCompressed && { 'grpc.default_compression_algorithm': 2 }),
  });
  return new Promise((resolve) => {
    const same = (value: Buffer) => value;
    const call = raw.makeServerStreamRequest(GENERATE, same, same, bytes);
    call.on('data', () => undefined);
    call.on('error', () => {
      raw.close();
      resolve();
    });
  });
}

async function floodReflection(): Promise<void> {
  const session = connectHttp2(`http://${address}`);
  session.on('error', () => undefined);
  const stream = session.request({
    ':method': 'POST',
    ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => undefined);
  const symbol = Buffer.from('darkroom.v1.InferenceService');
  const body = Buffer.concat([Buffer.from([0x22, symbol.length]), symbol]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  const message = Buffer.concat([head, body]);
  // Nothing is read: the stream stays paused.
  stream.write(Buffer.alloc(2 * MB - ((2 * MB) % message.length), message));
  await sleep(2000);
  session.destroy();
}

/** Jobs that ended, with long prompts: they are cancelled while they wait. */
async function endJobs(): Promise<void> {
  const one = async (i: number) => {
    const abort = new AbortController();
    try {
      const request = { prompt: `${'a lake at dawn '.repeat(1000)}${i}`, width: 64, height: 64, steps: 1 };
      for await (const { event } of generate(client, request, abort.signal))
        if (event?.$case === 'queued') abort.abort();
    } catch {
      // Cancelled.
    }
  };
  for (let i = 0; i < JOBS; i += 50) await Promise.all(Array.from({ length: 50 }, (_, k) => one(i + k)));
}

async function listJobs(times: number): Promise<void> {
  const list = (jobs: DarkroomClient['jobs']) =>
    new Promise<void>((resolve) => jobs.listJobs(ListJobsRequest.fromPartial({ pageSize: 1000 }), () => resolve()));
  await Promise.all(Array.from({ length: times }, () => list(client.jobs)));
}
