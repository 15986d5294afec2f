import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { JobState } from '../../src/gen/darkroom/v1/job.js';
import { contractJobTypes as jobTypes } from '../../src/job-types.js';
import type { MemoryQueue } from '../../src/queue-bridge/queue/memory-queue.js';
import type { AssetStore } from '../../src/storage/asset-store.js';
import { LocalStore } from '../../src/storage/local-store.js';
import { storageError } from '../../src/storage/storage-error.js';
import { version } from '../../src/version.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { outcomeOf, quick, type Serving, serve, until } from '../support/serving.js';

let serving: Serving;
let address: string;
beforeAll(async () => {
  serving = await serve({}, { withWan: true });
  address = `127.0.0.1:${serving.server.port}`;
});
afterAll(() => serving.stop());

const filesUnder = async (folder: string) =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
/** The job as the server keeps it. */
const jobOnServer = (jobId: string) =>
  new Promise<{ state: JobState; lastSequence: bigint } | undefined>((resolve) =>
    serving.client.jobs.getJob({ jobId }, (_, response) => resolve(response?.job)),
  );
const slowConfig = { width: 1024, height: 1024, steps: 40 };

describe('a bridge', () => {
  it.each([...jobTypes.keys()])('runs a job of type %s from payload to callback', async (type) => {
    const { start, push, ended, receiver, folder } = await bridging(address);
    await start();
    const info = jobTypes.get(type);
    const list = info?.family === 'wan' ? 'wan_queue' : 'sdxl_queue';
    const isVideo = info?.makes === 'video';
    const config = { seed: 11, ...(isVideo && { frame_num: 6 }) };
    const id = `job-${type}`;
    await push(quickPayload(id, { type, config }), list);
    const { status, assets, error_message, metadata, ...rest } = await ended(id);
    expect([status, error_message, rest]).toEqual(['completed', null, { job_id: id }]);
    expect(assets.map((url) => fileURLToPath(url).slice(folder.length + 1))).toEqual([
      `${type}/ann/${id}/0.${isVideo ? 'mp4' : 'png'}`,
    ]);
    expect(metadata).toMatchObject({
      seed: 11,
      seeds: [11],
      job_type: type,
      num_images: 1,
      width: 64,
      height: 64,
      steps: 2,
      frames: isVideo ? 5 : info?.family === 'wan' ? 1 : null,
      fps: isVideo ? 16 : null,
      user_id: 'ann',
      original_prompt: 'a red circle',
      enhancement_strategy: type.includes('7b') ? 'fallback' : 'none',
      compel_enabled: false,
      compel_weights: null,
      compel_success: null,
      enhanced_prompt: null,
      final_prompt_type: 'string',
      reference_mode: 'none',
      reference_applied: null,
      vram_used_gb: null,
      worker_version: version,
      expected_time: info?.expectedSeconds(1),
    });
    // Every file is at its URL with its size and hash. A video has its poster and thumbnail beside it.
    const files = metadata.files as { url: string; sha256: string; size_bytes: number; role: string }[];
    expect(files.map(({ role }) => role)).toEqual(isVideo ? ['result', 'poster', 'thumbnail'] : ['result']);
    for (const { url, sha256, size_bytes } of files) {
      const bytes = await readFile(fileURLToPath(url));
      expect([bytes.length, createHash('sha256').update(bytes).digest('hex')]).toEqual([size_bytes, sha256]);
    }
    expect(await filesUnder(folder)).toHaveLength(files.length);
    expect(receiver.received.map(({ body }) => body.status)).toEqual(['processing', 'completed']);
  });

  it('makes the image that the seed gives without a bridge', async () => {
    const { start, push, ended } = await bridging(address);
    await start();
    await push(quickPayload('three', { config: { seed: 5, num_images: 3 } }));
    const { assets, metadata } = await ended('three');
    const direct = await outcomeOf(serving.client, {
      ...quick,
      jobType: 1,
      seed: 5n,
      numImages: 3,
      outputMetadata: 0,
    });
    expect(metadata.seeds).toEqual([5, 6, 7]);
    for (const [i, url] of assets.entries()) {
      expect((await readFile(fileURLToPath(url))).equals(direct.files[i] ?? Buffer.alloc(0))).toBe(true);
    }
  });

  it('reports whether the weights were applied', async () => {
    const { start, push, ended } = await bridging(address);
    await start();
    await push(quickPayload('w1', { compel_enabled: true, compel_weights: '(sky:1.3)' }));
    await push(quickPayload('w2', { compel_enabled: true, compel_weights: '(sky:1.3' }));
    expect((await ended('w1')).metadata).toMatchObject({
      compel_enabled: true,
      compel_weights: '(sky:1.3)',
      compel_success: true,
      enhancement_strategy: 'compel',
      final_prompt_type: 'conditioning_tensor',
    });
    expect((await ended('w2')).metadata).toMatchObject({ compel_success: false, enhancement_strategy: 'fallback' });
  });

  it('signs callbacks as Standard Webhooks and sends the bearer token with them', async () => {
    const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
    const { start, push, ended, receiver } = await bridging(address, {
      variables: { CALLBACK_SECRET: secret, CALLBACK_TOKEN: 'a-token' },
    });
    await start();
    await push(quickPayload('signed.1'));
    await ended('signed.1');
    expect(receiver.received.map(({ headers }) => headers['webhook-id'])).toEqual([
      'signed~1:1:processing',
      'signed~1:1:terminal',
    ]);
    for (const { headers, raw } of receiver.received) {
      expect(headers.authorization).toBe('Bearer a-token');
      expect(new Webhook(secret).verify(raw, headers as Record<string, string>)).toEqual(JSON.parse(raw));
    }
  });

  it('ends every malformed payload as the contract says, and runs the job after it', async () => {
    const { start, push, ended, queue } = await bridging(address);
    const deep = (n: number) => `${'['.repeat(n)}${']'.repeat(n)}`;
    await push('not json {');
    await push('{"prompt":"a kite"}');
    await push('{"id":7,"type":"image_fast"}');
    await push(deep(100_000));
    await push({ id: 'm1', type: 'sdxl_image_fast', user_id: 'ann' });
    await push({ id: 'm2', type: 'sdxl_image_slow', prompt: 'a kite', user_id: 'ann' });
    await push(quickPayload('m3', { config: { num_images: 2 } }));
    await push(`{"id":"m4","type":"sdxl_image_fast","user_id":"ann","prompt":${deep(100_000)}}`);
    await push(quickPayload('m5', { prompt: 'x'.repeat(10_000_000) }));
    await push(quickPayload('m6', { prompt: 'x'.repeat(20_000) }));
    await push(quickPayload('m7', { type: 'image_fast', config: { num_images: 3 } }));
    await push(quickPayload('fine', { type: 'image_fast' }), 'sdxl_queue');
    await start();
    expect((await ended('fine')).status).toBe('completed');
    const problems: Record<string, string | null> = {};
    for (const id of ['m1', 'm2', 'm3', 'm4', 'm5', 'm6', 'm7']) {
      const { status, assets, error_message, metadata } = await ended(id);
      problems[id] = error_message;
      expect([status, assets]).toEqual(['failed', []]);
      expect(metadata).toEqual({
        error_type: 'INVALID_REQUEST',
        error_timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
        worker_version: version,
      });
    }
    expect(problems).toEqual({
      m1: 'Invalid parameters: prompt must be a string',
      m2: expect.stringMatching(/^Invalid parameters: type "sdxl_image_slow" must be one of sdxl_image_fast, /),
      m3: 'Invalid parameters: num_images 2 must be 1, 3 or 6',
      m4: 'Invalid parameters: prompt must be a string',
      m5: expect.stringMatching(/^Invalid parameters: the payload of 100001\d\d bytes must be <= 1048576$/),
      m6: 'Invalid parameters: prompt of 20000 bytes must be <= 16384; shorten it or raise LIMIT_PROMPT_BYTES',
      m7: 'Invalid parameters: num_images 3 must be 1 for WAN',
    });
    const { rejected } = await queue.deadLetters(10);
    expect(rejected.map((record) => (JSON.parse(record) as { problem: string }).problem).reverse()).toEqual([
      'the payload is not JSON',
      'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"',
      'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"',
      'the payload is not a JSON object',
    ]);
  });

  it('fails a job that the policy rejects, without a retry', async () => {
    const { start, push, ended, queue } = await bridging(address);
    await start();
    await push(quickPayload('policy', { prompt: 'an explicit child' }));
    const { error_message, metadata } = await ended('policy');
    expect(error_message).toMatch(/^Invalid parameters: the prompt is refused/);
    expect(metadata.error_type).toBe('POLICY');
    expect(await queue.show('policy')).toMatchObject({ state: 'failed', attempts: '1' });
  });

  it('runs a job that is pushed twice once, and repeats its callback with the same id on a later push', async () => {
    const { start, push, ended, receiver } = await bridging(address);
    await start();
    await push(quickPayload('twice'));
    await push(quickPayload('twice'));
    await ended('twice');
    const sequence = (await jobOnServer('twice'))?.lastSequence;
    await push(quickPayload('twice'));
    await until(() => receiver.received.length === 3);
    const terminal = receiver.received.filter(({ body }) => body.status === 'completed');
    expect(new Set(terminal.map(({ headers, raw }) => `${headers['webhook-id']} ${raw}`)).size).toBe(1);
    expect((await jobOnServer('twice'))?.lastSequence).toBe(sequence);
  });

  it('retries a receiver that fails, is late or is too busy, with the same id', async () => {
    const answers = [500, 'hang', { status: 429, headers: { 'retry-after': '0' } }, 200] as const;
    const { start, push, ended, receiver } = await bridging(address, {
      answer: ({ status }, tries) => (status === 'completed' ? (answers[tries - 1] ?? 200) : 200),
      variables: { CALLBACK_TIMEOUT_MS: '200' },
    });
    await start();
    await push(quickPayload('retried'));
    await ended('retried');
    const tries = receiver.received.filter(({ body }) => body.status === 'completed');
    expect(tries.map(({ status }) => status)).toEqual([500, 0, 429, 200]);
    expect(new Set(tries.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
  });

  it('does not send processing after the end to a receiver that rejected it', async () => {
    const { start, push, ended, receiver } = await bridging(address, {
      answer: ({ status }) => (status === 'processing' ? 503 : 200),
      variables: { CALLBACK_RETRY_MS: '1000' },
    });
    await start();
    await push(quickPayload('order'));
    await ended('order');
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(receiver.received.at(-1)?.body.status).toBe('completed');
  });

  it('gives up a callback that is rejected for good or fails for too long, and delivers it on replay', async () => {
    let isMended = false;
    const { start, push, queue, receiver } = await bridging(address, {
      answer: ({ job_id }) => (isMended ? 200 : job_id === 'gone' ? 404 : 503),
      variables: { CALLBACK_MAX_AGE_MS: '1000', CALLBACK_RETRY_MAX_MS: '100' },
    });
    await start();
    await push(quickPayload('gone'));
    await push(quickPayload('late'));
    await until(async () => (await queue.deadLetters(10)).callbacks.length === 2);
    expect((await queue.show('gone'))?.cb_error).toBe('the receiver answered 404');
    isMended = true;
    for (const id of ['gone', 'late']) expect(await queue.replay(id, false)).toBe('calls back');
    await until(() => receiver.taken('gone').length > 0 && receiver.taken('late').length > 0);
    expect((await queue.counts()).deadCallbacks).toBe(0);
  });

  it('cancels a job on the server when its cancel key is set', async () => {
    const { start, push, ended, queue } = await bridging(address, { variables: { BRIDGE_LEASE_MS: '1000' } });
    await start();
    await push(quickPayload('cancelled', { config: slowConfig }));
    await until(async () => (await jobOnServer('cancelled'))?.state === JobState.JOB_STATE_RUNNING);
    expect(await queue.cancel('cancelled', '')).toBe('asked');
    const { status, error_message, metadata } = await ended('cancelled');
    expect([status, error_message, metadata.error_type]).toEqual([
      'failed',
      'Generation failed: the job was cancelled',
      'CANCELLED',
    ]);
    await until(async () => (await jobOnServer('cancelled'))?.state === JobState.JOB_STATE_CANCELLED);
  });

  it('writes the progress of a job', async () => {
    const { start, push, ended, queue } = await bridging(address, { variables: { BRIDGE_PROGRESS_MS: '100' } });
    const memory = queue as MemoryQueue;
    await start();
    await push(quickPayload('watched', { config: { width: 256, height: 256, steps: 20 } }));
    const phases = new Set<unknown>();
    await until(() => {
      const progress = JSON.parse(memory.progressOf('watched') ?? '{}') as { status?: string; phase?: string };
      phases.add(progress.phase);
      return progress.status === 'completed';
    });
    await ended('watched');
    expect([...phases]).toContain('denoise');
    expect(JSON.parse(memory.progressOf('watched') ?? '')).toMatchObject({ job_id: 'watched', fraction: 1 });
  });

  it('releases its jobs unspent when it stops, and the next one attaches to them on their server', async () => {
    const { start, push, ended, queue } = await bridging(address);
    const first = await start();
    await push(quickPayload('handed', { config: { width: 256, height: 256, steps: 60 } }));
    await until(async () => (await jobOnServer('handed'))?.state === JobState.JOB_STATE_RUNNING);
    await first.stop();
    expect(await queue.show('handed')).toMatchObject({ state: 'waiting', attempts: '0' });
    await start();
    await ended('handed');
    const starts = [];
    for await (const { event } of serving.client.jobs.watchJob({ jobId: 'handed', afterSequence: 0n })) {
      if (event?.event?.$case === 'started') starts.push(event);
    }
    expect(starts).toHaveLength(1);
  });

  it('waits for jobs in flight when it stops, for up to BRIDGE_DRAIN_MS', async () => {
    const { start, push, queue, receiver } = await bridging(address, { variables: { BRIDGE_DRAIN_MS: '60000' } });
    const bridge = await start();
    await push(quickPayload('last', { config: { width: 256, height: 256, steps: 20 } }));
    await until(() => bridge.running === 1);
    await bridge.stop();
    expect((await queue.show('last'))?.state).toBe('completed');
    expect(receiver.taken('last').at(-1)?.body.status).toBe('completed');
  });

  it('retries a failed upload without generating again, and gives up in the end', async () => {
    const { start, push, ended, queue, folder } = await bridging(address, { variables: { BRIDGE_ATTEMPTS: '3' } });
    const local = new LocalStore({ folder });
    const failures = new Map<string, number>([
      ['flaky', 2],
      ['never', 1000],
    ]);
    const storage: AssetStore = {
      kind: 'local',
      async put(object, signal) {
        const [, id = ''] = object.key.split('/');
        const left = failures.get(id) ?? 0;
        failures.set(id, left - 1);
        if (left > 0) throw storageError('the disk is full', new Error('ENOSPC'));
        return local.put(object, signal);
      },
    };
    await start({ storage });
    await push(quickPayload('flaky'));
    await push(quickPayload('never'));
    expect((await ended('flaky')).status).toBe('completed');
    expect(await queue.show('flaky')).toMatchObject({ attempts: '3' });
    const { error_message, metadata } = await ended('never');
    expect([error_message, metadata.error_type]).toEqual([
      'Generation failed: the disk is full: ENOSPC',
      'STORAGE_FAILED',
    ]);
    expect((await queue.deadLetters(10)).jobs).toEqual(['never']);
    for (const jobId of ['flaky', 'never']) {
      const starts = [];
      for await (const { event } of serving.client.jobs.watchJob({ jobId, afterSequence: 0n })) {
        if (event?.event?.$case === 'started') starts.push(event);
      }
      expect(starts).toHaveLength(1);
    }
  });

  it('leaves jobs in the queue while no server has their model, and spends no attempt', async () => {
    const { start, push, ended, queue } = await bridging('127.0.0.1:1');
    await start();
    await push(quickPayload('patient'));
    await until(async () => (await queue.counts()).waiting === 1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await queue.show('patient')).toMatchObject({ state: 'waiting', attempts: '0' });
    await start({ variables: { DARKROOM_SERVER: address } });
    expect((await ended('patient')).status).toBe('completed');
  });

  it('runs a job whose id another client used on the server', async () => {
    await outcomeOf(serving.client, { ...quick, jobId: 'taken' });
    const { start, push, ended } = await bridging(address);
    await start();
    await push(quickPayload('taken'));
    expect(await ended('taken')).toMatchObject({ status: 'completed', job_id: 'taken' });
  });

  it('runs a replayed job under a new callback id', async () => {
    const { start, push, ended, queue, receiver } = await bridging(address);
    await start();
    await push(quickPayload('replayed', { prompt: 'an explicit child' }));
    await ended('replayed');
    expect(await queue.replay('replayed', false)).toBe('runs');
    await until(() => receiver.received.filter(({ body }) => body.status === 'failed').length === 2);
    expect(new Set(receiver.received.map(({ headers }) => headers['webhook-id']))).toEqual(
      new Set(['replayed:1:processing', 'replayed:1:terminal', 'replayed:2:processing', 'replayed:2:terminal']),
    );
  });
});

describe('a callback that is redirected', () => {
  it.each([307, 308])('with %s within its origin is followed once, with its body and signature', async (status) => {
    const { start, push, ended, receiver } = await bridging(address, {
      answer: (_, tries) => (tries === 1 ? { status, headers: { location: '/functions/v2/job-callback' } } : 200),
    });
    await start();
    await push(quickPayload(`moved-${status}`));
    expect((await ended(`moved-${status}`)).status).toBe('completed');
    expect(receiver.received.filter(({ status: answered }) => answered === status)).not.toHaveLength(0);
  });

  it('to another origin is given up, and the dead letter says where it pointed', async () => {
    const { start, push, queue } = await bridging(address, {
      answer: () => ({ status: 307, headers: { location: 'https://elsewhere.test/hook' } }),
    });
    await start();
    await push(quickPayload('elsewhere'));
    await until(async () => (await queue.deadLetters(10)).callbacks.length > 0);
    const journal = await queue.show('elsewhere');
    expect(JSON.stringify(journal)).toContain('the receiver answered 307 and pointed to https://elsewhere.test/hook');
  });
});

describe('a machine without room', () => {
  it('costs a job no attempt: it waits, and completes once there is room', async () => {
    let failures = 0;
    const { start, push, ended, queue, folder } = await bridging(address, { variables: { BRIDGE_ATTEMPTS: '1' } });
    const local = new LocalStore({ folder });
    const full: AssetStore = {
      kind: 'local',
      async put(object, signal) {
        failures += 1;
        if (failures > 3) return local.put(object, signal);
        const error = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
        throw storageError('the file was not written', error);
      },
    };
    await start({ storage: full });
    await push(quickPayload('no-room'));
    expect((await ended('no-room')).status).toBe('completed');
    expect(failures).toBe(4);
    expect(await queue.show('no-room')).toMatchObject({ attempts: '1', state: 'completed' });
  });
});
