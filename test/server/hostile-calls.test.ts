import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { createInterface } from 'node:readline';
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { connect, type DarkroomClient, serverStatus } from '../../src/client/client.js';
import { readConfig } from '../../src/config/server-config.js';
import { EstimateRequest, GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { errorFromStatus } from '../../src/rpc/status.js';
import { createServer } from '../../src/server/server.js';
import { main } from '../support/command-line.js';
import { outcomeOf, quick, silent, until } from '../support/serving.js';

const MB = 1024 * 1024;
const GENERATE = '/darkroom.v1.InferenceService/Generate';

let server: ChildProcess;
let address: string;
let client: DarkroomClient;

/** A server process of its own: what it takes is seen from outside. */
beforeAll(async () => {
  server = spawn(
    process.execPath,
    [main, 'serve', '--listen', '127.0.0.1:0', '--device', 'cpu', '--sdxl', inject('tinySdxl')],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ENGINE_THREADS: '1', LOG_LEVEL: 'error' },
    },
  );
  const lines = createInterface({ input: server.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]();
  address = String((await lines.next()).value).replace('darkroom listens on ', '');
  await lines.next();
  client = connect(address);
});

afterAll(() => {
  client.close();
  server.kill('SIGKILL');
});

const isAlive = async () => (await serverStatus(client, 10_000)).version !== '';

function residentBytes(): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1]) * 1024;
}

/** The most that the server takes while something runs. */
async function peakWhile<T>(run: () => Promise<T>): Promise<{ readonly result: T; readonly peak: number }> {
  let peak = residentBytes();
  const timer = setInterval(() => {
    peak = Math.max(peak, residentBytes());
  }, 20);
  try {
    return { result: await run(), peak };
  } finally {
    clearInterval(timer);
  }
}

/** Sends bytes as the request of a streaming method. */
function send(
  bytes: Buffer,
  { gzip = false, to = address, path = GENERATE } = {},
): Promise<ReturnType<typeof errorFromStatus>> {
  const raw = new Client(to, credentials.createInsecure(), {
    'grpc.max_send_message_length': -1,
    ...(gzip && { 'grpc.default_compression_algorithm': 2 }),
  });
  return new Promise((resolve) => {
    const call = raw.makeServerStreamRequest(
      path,
      (value: Buffer) => value,
      (value) => value,
      bytes,
    );
    call.on('data', () => undefined);
    call.on('error', (error: ServiceError) => {
      raw.close();
      resolve(errorFromStatus(error));
    });
  });
}

describe('a text with half a character at the end of what an error quotes', () => {
  const cut = `${'a'.repeat(127)}\u{1F600}`;
  const name = `${'a'.repeat(63)}\u{1F600}`;
  type Failing = (respond: (error: ServiceError | null) => void) => void;

  it.each<[string, Failing]>([
    ['GetJob', (respond) => client.jobs.getJob({ jobId: cut }, respond)],
    ['CancelJob', (respond) => client.jobs.cancelJob({ jobId: cut }, respond)],
    [
      'Estimate',
      (respond) => client.inference.estimate({ request: GenerateRequest.fromPartial({ model: name }) }, respond),
    ],
    ['Tokenize', (respond) => client.inference.tokenize({ model: name, text: 'a', promptSyntax: 0 }, respond)],
    ['LoadModel', (respond) => client.models.loadModel({ name }, respond)],
    ['UnloadModel', (respond) => client.models.unloadModel({ name }, respond)],
  ])('is answered by %s, and the server lives', async (_, call) => {
    const error = await new Promise<ServiceError | null>((resolve) => call(resolve));
    expect(error?.code).toBe(status.NOT_FOUND);
    expect(error?.details).toContain('a\uFFFD');
    expect(await isAlive()).toBe(true);
  });

  it('ends a stream, too', async () => {
    const { error } = await outcomeOf(client, { ...quick, model: name });
    expect(error?.reason).toBe('MODEL_NOT_FOUND');
    const scheduler = await outcomeOf(client, { ...quick, scheduler: name });
    expect(scheduler.error?.reason).toBe('INVALID_REQUEST');
  });
});

describe('LoRA signs', () => {
  // Seconds each with a pattern that backtracks: the test's own timeout is the bound.
  it.each([
    ['open ones', '<lora:'.repeat(2700)],
    ['blanks before a sign that never closes', `<lora:${' '.repeat(16_000)}`],
    ['commas and blanks', `${' ,'.repeat(8000)}<lora:a`],
    ['colons', `<lora:a${':'.repeat(16_000)}`],
    ['four times the limit', ' <lora:a:1'.repeat(6500)],
  ])('are read in linear time: %s', { timeout: 5000 }, async (_, prompt) => {
    for (let i = 0; i < 20; i += 1) {
      const { error } = await outcomeOf(client, { ...quick, prompt, steps: 5000 });
      expect(error?.reason).toBe('INVALID_REQUEST');
    }
  });
});

describe('a request of many small messages', () => {
  const references = Buffer.alloc(31 * MB, Buffer.from([0x8a, 0x01, 0x00]));
  const labels = Buffer.alloc(31 * MB, Buffer.from([0xa2, 0x01, 0x00]));
  // One reference with millions of images, of which the last one counts.
  const inner = Buffer.alloc(30 * MB, Buffer.from([0x0a, 0x00]));
  const images = Buffer.concat([Buffer.from([0x8a, 0x01]), Buffer.from([0x80, 0x80, 0x80 | 0x00, 0x0f]), inner]);
  const groups = Buffer.alloc(31 * MB, 0x1b);

  it.each([
    ['references', references],
    ['labels', labels],
    ['images of one reference', images],
    ['groups', groups],
  ])('is refused before it is decoded: %s', { timeout: 20_000 }, async (_, bytes) => {
    const { result, peak } = await peakWhile(() => send(bytes));
    expect(result.reason).toBe('INVALID_REQUEST');
    expect(peak).toBeLessThan(400 * MB);
  });

  it('is bounded by what it inflates to', { timeout: 20_000 }, async () => {
    const { result, peak } = await peakWhile(() => send(references, { gzip: true }));
    expect(result.reason).toBe('INVALID_REQUEST');
    const long = Buffer.alloc(200 * MB);
    // A prompt of the rest of the message.
    Buffer.from([0x22, 0xfb, 0xff, 0xff, 0x63]).copy(long);
    const prompt = await peakWhile(() => send(long, { gzip: true }));
    expect(prompt.result.reason).toBe('REQUEST_TOO_LARGE');
    expect(Math.max(peak, prompt.peak)).toBeLessThan(400 * MB);
  });

  it('is refused where its method takes no images', async () => {
    const error = await send(references, { path: '/darkroom.v1.InferenceService/Enhance' });
    expect([error.reason, error.message]).toEqual([
      'REQUEST_TOO_LARGE',
      expect.stringMatching(
        /^the request has \d+ bytes, must have at most 196608; send smaller images or shorter texts$/,
      ),
    ]);
  });

  it('with images is no larger for it: an estimate with two of them works', async () => {
    const image = { source: { $case: 'image' as const, value: Buffer.alloc(2 * MB, 7) } };
    const request = GenerateRequest.fromPartial({ ...quick, references: [image] });
    const error = await new Promise<ServiceError | null>((resolve) =>
      client.inference.estimate(EstimateRequest.fromPartial({ request }), resolve),
    );
    expect(error).toBeNull();
  });

  it('waits for its token: without one the body is not read', async () => {
    const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0', AUTH_TOKEN: 'a-token-of-the-test' });
    const guarded = await createServer({ config, log: silent, engines: [] });
    try {
      const error = await send(references, { to: `127.0.0.1:${guarded.port}` });
      expect(error.reason).toBe('UNAUTHENTICATED');
    } finally {
      await guarded.close();
    }
  });
});

describe('requests that never end', () => {
  let session: ClientHttp2Session;

  /** A call that sends the beginning of a message and leaves it there. @returns its status, once it has one */
  function begin(announced: number, sent: number): Promise<string> {
    const stream = session.request({
      ':method': 'POST',
      ':path': GENERATE,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(announced, 1);
    stream.write(head);
    stream.write(Buffer.alloc(sent));
    return new Promise((resolve) => {
      stream.on('response', (headers) => resolve(String(headers['grpc-status'])));
      stream.on('error', () => resolve('reset'));
      stream.resume();
    });
  }

  it('hold no more memory than a few of them, and others are served meanwhile', { timeout: 60_000 }, async () => {
    session = connectHttp2(`http://${address}`);
    const { peak } = await peakWhile(async () => {
      for (let i = 0; i < 64; i += 1) void begin(30 * MB, 29 * MB);
      await new Promise((resolve) => setTimeout(resolve, 3000));
      const { error } = await outcomeOf(client, quick);
      expect(error).toBeUndefined();
    });
    expect(peak).toBeLessThan(400 * MB);
    session.destroy();
    await until(isAlive);
  });
});

describe('reflection', () => {
  it('does not answer faster than the client reads', { timeout: 60_000 }, async () => {
    const session = connectHttp2(`http://${address}`);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const symbol = Buffer.from('darkroom.v1.InferenceService');
    const body = Buffer.concat([Buffer.from([0x22, symbol.length]), symbol]);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    const message = Buffer.concat([head, body]);
    // Nothing is read: the stream stays paused.
    const { peak } = await peakWhile(async () => {
      stream.write(Buffer.concat(Array.from({ length: 50_000 }, () => message)));
      await new Promise((resolve) => setTimeout(resolve, 4000));
    });
    expect(peak).toBeLessThan(400 * MB);
    session.destroy();
    expect(await isAlive()).toBe(true);
  });
});
