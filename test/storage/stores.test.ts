import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalStore } from '../../src/storage/local-store.js';
import { S3Store } from '../../src/storage/s3-store.js';
import { SupabaseStore } from '../../src/storage/supabase-store.js';
import { startObjectServer } from '../support/object-server.js';
import { fileToStore } from '../support/stored-file.js';
import { tempFolder } from '../support/temp-folder.js';

const never = new AbortController().signal;
// Larger than one read of a stream.
const bytes = randomBytes(300_000);

describe('a local store', () => {
  it('writes a complete file under bucket, user and job, and returns its file URL', async () => {
    const folder = await tempFolder();
    const url = await new LocalStore({ folder }).put(await fileToStore(bytes), never);
    expect(fileURLToPath(url)).toBe(join(folder, 'sdxl_image_fast', 'ann', 'job-1', '0.png'));
    expect((await readFile(fileURLToPath(url))).equals(bytes)).toBe(true);
  });

  it('replaces a file of the same name and leaves nothing beside it', async () => {
    const folder = await tempFolder();
    const store = new LocalStore({ folder, baseUrl: 'https://cdn.example/files/' });
    await store.put(await fileToStore(randomBytes(10)), never);
    expect(await store.put(await fileToStore(bytes), never)).toBe(
      'https://cdn.example/files/sdxl_image_fast/ann/job-1/0.png',
    );
    const job = join(folder, 'sdxl_image_fast', 'ann', 'job-1');
    expect(await readdir(job)).toEqual(['0.png']);
    expect((await readFile(join(job, '0.png'))).equals(bytes)).toBe(true);
  });

  it('leaves nothing behind when it is stopped, and names the file', async () => {
    const folder = await tempFolder();
    const stopped = AbortSignal.abort();
    const put = new LocalStore({ folder }).put(await fileToStore(bytes), stopped);
    await expect(put).rejects.toMatchObject({ reason: 'STORAGE_FAILED', message: expect.stringContaining('0.png') });
    expect(await readdir(join(folder, 'sdxl_image_fast', 'ann', 'job-1'))).toEqual([]);
    expect(await readdir(join(folder, '.parts'))).toEqual([]);
  });

  it('removes part files that a killed process left long ago', async () => {
    const folder = await tempFolder();
    await mkdir(join(folder, '.parts'));
    for (const name of ['old', 'new']) await writeFile(join(folder, '.parts', name), 'x');
    await utimes(join(folder, '.parts', 'old'), 1, 1);
    await new LocalStore({ folder }).put(await fileToStore(bytes), never);
    expect(await readdir(join(folder, '.parts'))).toEqual(['new']);
  });
});

describe('Supabase Storage', () => {
  const store = (url: string, signedUrlSeconds = 0) =>
    new SupabaseStore({ url, serviceKey: 'service-key', signedUrlSeconds, timeoutMs: 5000 });

  it('gets the bytes with type and length as an upsert, and returns the public URL', async () => {
    const { url, requests } = await startObjectServer(() => ({ status: 200, body: '{"Key":"k"}' }));
    expect(await store(`${url}/`).put(await fileToStore(bytes, 'ann/job 1/0.png'), never)).toBe(
      `${url}/storage/v1/object/public/sdxl_image_fast/ann/job%201/0.png`,
    );
    const [request] = requests;
    expect([request?.method, request?.path]).toEqual(['POST', '/storage/v1/object/sdxl_image_fast/ann/job%201/0.png']);
    expect(request?.headers).toMatchObject({
      authorization: 'Bearer service-key',
      apikey: 'service-key',
      'content-type': 'image/png',
      'content-length': '300000',
      'x-upsert': 'true',
    });
    expect(request?.body.equals(bytes)).toBe(true);
  });

  it('signs URLs of private buckets', async () => {
    const { url, requests } = await startObjectServer(({ path }) => ({
      status: 200,
      body: path.includes('/sign/') ? '{"signedURL":"/object/sign/b/k?token=t"}' : '{}',
    }));
    expect(await store(url, 3600).put(await fileToStore(bytes), never)).toBe(
      `${url}/storage/v1/object/sign/b/k?token=t`,
    );
    expect(requests[1]?.body.toString()).toBe('{"expiresIn":3600}');
  });

  it('is retried after a short failure, with the whole file', async () => {
    let tries = 0;
    const { url, requests } = await startObjectServer(() => ({ status: ++tries < 3 ? 503 : 200, body: '{}' }));
    await store(url).put(await fileToStore(bytes), never);
    expect(requests.map(({ body }) => body.equals(bytes))).toEqual([true, true, true]);
  });

  it('reports the answer, and suggests a missing bucket for 404', async () => {
    const { url } = await startObjectServer(() => ({ status: 404, body: '{"error":"Bucket not found"}' }));
    await expect(store(url).put(await fileToStore(bytes), never)).rejects.toMatchObject({
      reason: 'STORAGE_FAILED',
      message:
        'Supabase Storage answered 404 to object/sdxl_image_fast/ann/job-1/0.png: {"error":"Bucket not found"}; is there a bucket of that name?',
    });
  });
});

describe('S3', () => {
  beforeEach(() => {
    vi.stubEnv('AWS_ACCESS_KEY_ID', 'key');
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
  });
  afterEach(() => void vi.unstubAllEnvs());

  it('gets the bytes under the job type, signed, with their checksum', async () => {
    const { url, requests } = await startObjectServer(() => ({ status: 200 }));
    const store = await S3Store.create({ bucket: 'assets', region: 'eu-west-1', endpoint: url, timeoutMs: 5000 });
    expect(await store.put(await fileToStore(bytes), never)).toBe(`${url}/assets/sdxl_image_fast/ann/job-1/0.png`);
    const [request] = requests;
    expect([request?.method, request?.path.split('?')[0]]).toEqual(['PUT', '/assets/sdxl_image_fast/ann/job-1/0.png']);
    expect(request?.body.equals(bytes)).toBe(true);
    expect(request?.headers).toMatchObject({
      'content-type': 'image/png',
      'x-amz-checksum-sha256': createHash('sha256').update(bytes).digest('base64'),
      authorization: expect.stringContaining('AWS4-HMAC-SHA256 Credential=key/'),
    });
  });

  it('is retried after a short failure, with the whole file', async () => {
    let tries = 0;
    const { url, requests } = await startObjectServer(() => ({ status: ++tries < 2 ? 503 : 200 }));
    const store = await S3Store.create({ bucket: 'assets', region: 'eu-west-1', endpoint: url, timeoutMs: 5000 });
    await store.put(await fileToStore(bytes), never);
    expect(requests.map(({ body }) => body.equals(bytes))).toEqual([true, true]);
  });

  it('returns URLs that start with the base URL', async () => {
    const { url } = await startObjectServer(() => ({ status: 200 }));
    const options = { bucket: 'assets', region: 'eu-west-1', endpoint: url, timeoutMs: 5000 };
    const store = await S3Store.create({ ...options, baseUrl: 'https://cdn.example/' });
    expect(await store.put(await fileToStore(bytes), never)).toBe(
      'https://cdn.example/sdxl_image_fast/ann/job-1/0.png',
    );
  });

  it('reports the answer', async () => {
    const { url } = await startObjectServer(() => ({
      status: 403,
      headers: { 'content-type': 'application/xml' },
      body: '<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>',
    }));
    const store = await S3Store.create({ bucket: 'assets', region: 'eu-west-1', endpoint: url, timeoutMs: 5000 });
    await expect(store.put(await fileToStore(bytes), never)).rejects.toMatchObject({
      reason: 'STORAGE_FAILED',
      message: 'S3 rejected assets/sdxl_image_fast/ann/job-1/0.png: Access Denied',
    });
  });
});
