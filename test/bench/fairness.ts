/**
 * npm run bench -- fairness [--users 50] [--most 500] [--side 256] [--batch-pixels N]
 *
 * Fills a server's queue with the jobs of many tokens, from one job to `--most` each, and measures how long the one with a single
 * job waits for its picture, against a server with nothing else to do. The queue is not worked off to its end.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { credentials, type Metadata } from '@grpc/grpc-js';
import { connect, type DarkroomClient, generate } from '../../src/client/client.js';
import { GenerateRequest, InferenceServiceClient } from '../../src/gen/darkroom/v1/inference_service.js';
import { addToken } from '../../src/server/access/token-file.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { quantile, startServer, status } from './served.js';

const { values } = parseArgs({
  options: {
    users: { type: 'string', default: '50' },
    most: { type: 'string', default: '500' },
    side: { type: 'string', default: '256' },
    /** Default: one image. Images of a larger batch end together, which lengthens the wait for it. */
    'batch-pixels': { type: 'string' },
  },
});
const users = Number(values.users);
const most = Number(values.most);
const side = Number(values.side);
const RUNS = 15;

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  await measure();
} finally {
  await rm(folder, { recursive: true });
}

async function measure(): Promise<void> {
  const TOKENS_FILE = join(folder, 'tokens.json');
  const tokenOf = (name: string) => addToken(TOKENS_FILE, { name, scopes: ['generate', 'read'], limits: {} });
  const tokens: string[] = [];
  for (let i = 0; i < users + RUNS; i += 1) tokens.push(await tokenOf(`user-${i}`));
  const { server, address } = await startServer(
    ['--sdxl', await writeTinySdxl(join(folder, 'sdxl')), '--device', 'cpu'],
    {
      TOKENS_FILE,
      LIMIT_QUEUE: '100000',
      BATCH_PIXELS: values['batch-pixels'] ?? String(side * side),
    },
  );
  const clients = tokens.map((token) => connect(address, { token }));
  const [first] = clients as [DarkroomClient];
  try {
    while ((await status(first)).models[0]?.device === '') await pause(20);
    await firstResult(first, 0);
    const empty: number[] = [];
    for (let run = 0; run < RUNS; run += 1) empty.push(await firstResult(first, run));

    let seed = 1000;
    for (const [i, client] of clients.slice(1, users).entries()) {
      const jobs = Math.round(most ** ((i + 1) / (users - 1)));
      const own = new InferenceServiceClient(address, credentials.createInsecure(), {
        'grpc.use_local_subchannel_pool': 1,
      });
      const accepted = Array.from({ length: jobs }, () => start(own, client.metadata, seed++));
      await Promise.all(accepted);
    }
    const full: number[] = [];
    for (let run = 0; run < RUNS; run += 1) {
      full.push(await firstResult(clients[users + run] as DarkroomClient, seed++));
      await pause(Math.random() * 200);
    }
    const { queuedJobs } = await status(first);
    const [alone, among] = [quantile(empty, 0.5), quantile(full, 0.5)];
    say(`tiny SDXL, ${side}x${side}, 4 steps, on the CPU; ${RUNS} newcomers with one job each`);
    say(`empty server:                    ${alone.toFixed(0)} ms to the result, median`);
    say(
      `${users - 1} users, ${queuedJobs} jobs still waiting: ${among.toFixed(0)} ms, median; ${Math.max(...full).toFixed(0)} at most`,
    );
    say(`ratio of the medians:            ${(among / alone).toFixed(2)}; to hold: 2`);
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
    for (const client of clients) client.close();
  }
}

/** Time from the call to the first byte of a file, in ms. */
async function firstResult(client: DarkroomClient, seed: number): Promise<number> {
  const begin = performance.now();
  for await (const { event } of generate(client, requestOf(seed))) {
    if (event?.$case === 'assetChunk') return performance.now() - begin;
  }
  throw new Error('the job made no file');
}

/** Starts a job and follows it without a look. Every user has a connection of its own: one has 1000 streams at most. */
function start(inference: InferenceServiceClient, metadata: Metadata, seed: number): Promise<void> {
  const stream = inference.generate(GenerateRequest.fromPartial(requestOf(seed)), metadata);
  stream.on('error', () => undefined);
  return new Promise((resolve) => stream.on('data', () => resolve()));
}

function requestOf(seed: number): Partial<GenerateRequest> {
  return { prompt: 'a red circle', seed: BigInt(seed), width: side, height: side, steps: 4 };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
