import { chmod, mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  cancelJob,
  connect,
  type DarkroomClient,
  estimate,
  generate,
  serverStatus,
  tokenize,
} from '../../../src/client/client.js';
import { InferenceError } from '../../../src/errors.js';
import { DisconnectPolicy, Job } from '../../../src/gen/darkroom/v1/job.js';
import { ListJobsRequest, WatchJobRequest } from '../../../src/gen/darkroom/v1/job_service.js';
import { errorFromStatus } from '../../../src/rpc/status.js';
import type { Scope } from '../../../src/server/access/caller.js';
import { addToken, type NewToken, readTokenFile, revokeTokens } from '../../../src/server/access/token-file.js';
import { kinds, outcomeOf, quick, type Serving, serve, slow, until } from '../../support/serving.js';

let folder: string;
let file: string;
let audit: string;
let serving: Serving;
const clients: DarkroomClient[] = [];

/** A client with this token, or without one. */
function clientWith(token?: string): DarkroomClient {
  const client = connect(`127.0.0.1:${serving.server.port}`, { token });
  clients.push(client);
  return client;
}

async function newToken(name: string, scopes: Scope[], more: Partial<NewToken> = {}): Promise<string> {
  return addToken(file, { name, scopes, limits: {}, ...more });
}

/** What a promise is rejected with. */
async function errorOf(call: Promise<unknown>): Promise<InferenceError | undefined> {
  return call.then(
    () => undefined,
    (error: unknown) => InferenceError.from(error),
  );
}

async function auditLines(): Promise<readonly Record<string, unknown>[]> {
  const text = await readFile(audit, 'utf8');
  return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)]));
}

const jobOf = (client: DarkroomClient, jobId: string) =>
  new Promise<Job>((resolve, reject) =>
    client.jobs.getJob({ jobId }, client.metadata, (error, response) =>
      error ? reject(errorFromStatus(error)) : resolve(Job.fromPartial(response.job ?? {})),
    ),
  );

const listOf = (client: DarkroomClient) =>
  new Promise<readonly string[]>((resolve, reject) =>
    client.jobs.listJobs(ListJobsRequest.fromPartial({}), client.metadata, (error, response) =>
      error ? reject(errorFromStatus(error)) : resolve(response.jobs.map(({ jobId }) => jobId)),
    ),
  );

const watchOf = async (client: DarkroomClient, jobId: string) => {
  const events = client.jobs.watchJob(WatchJobRequest.fromPartial({ jobId }), client.metadata);
  try {
    for await (const _ of events);
  } catch (error) {
    return errorFromStatus(error as Parameters<typeof errorFromStatus>[0]).reason;
  }
  return undefined;
};

const cancelOf = (client: DarkroomClient, jobId: string) => cancelJob(client, jobId, 5000);

let anna: string;
let ben: string;
let admin: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  file = join(folder, 'tokens.json');
  audit = join(folder, 'audit.jsonl');
  anna = await newToken('anna', ['generate', 'read']);
  ben = await newToken('ben', ['generate', 'read']);
  admin = await newToken('operator', ['admin']);
  serving = await serve({ TOKENS_FILE: file, AUDIT_FILE: audit, LIMIT_QUEUE: '1000' });
});
afterAll(async () => {
  for (const client of clients) client.close();
  await serving?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe('a token', () => {
  it('is needed: missing, unknown, in another scheme', async () => {
    for (const client of [clientWith(), clientWith('dkr_unknown'), clientWith(anna.slice(0, -1))]) {
      const error = await errorOf(serverStatus(client, 5000));
      expect(error).toMatchObject({ reason: 'UNAUTHENTICATED', status: 'UNAUTHENTICATED' });
    }
    const basic = clientWith();
    basic.metadata.set('authorization', `Basic ${anna}`);
    expect(await errorOf(serverStatus(basic, 5000))).toMatchObject({ reason: 'UNAUTHENTICATED' });
  });

  it('that expired or was revoked says so', async () => {
    const old = await newToken('old', ['read'], { expires: '2020-01-01T00:00:00Z' });
    const lost = await newToken('lost', ['read']);
    await revokeTokens(file, 'lost');
    await until(async () => {
      const error = await errorOf(serverStatus(clientWith(lost), 5000));
      return /"lost" was revoked at 20/.test(error?.message ?? '');
    });
    const error = await errorOf(serverStatus(clientWith(old), 5000));
    expect(error).toMatchObject({ reason: 'UNAUTHENTICATED', info: { token: 'old' } });
    expect(error?.message).toMatch(/token "old" expired at 2020-01-01/);
  });

  it('does what its scopes allow, and no more', async () => {
    const reader = clientWith(await newToken('reader', ['read']));
    const maker = clientWith(await newToken('maker', ['generate']));
    await until(async () => (await errorOf(serverStatus(reader, 5000))) === undefined);
    expect(await errorOf(estimate(reader, quick))).toBeUndefined();
    const { error } = await outcomeOf(reader, quick);
    expect(error).toMatchObject({ reason: 'PERMISSION_DENIED', status: 'PERMISSION_DENIED' });
    expect(error?.message).toBe('token "reader" has the scope read; Generate needs generate or admin');
    expect((await outcomeOf(maker, quick)).error).toBeUndefined();
    expect(await errorOf(tokenize(maker, { text: 'a red circle' }))).toBeUndefined();
    expect(await errorOf(serverStatus(maker, 5000))).toMatchObject({ reason: 'PERMISSION_DENIED' });
    const load = (client: DarkroomClient) =>
      new Promise<string | undefined>((resolve) =>
        client.models.unloadModel({ name: 'sdxl' }, client.metadata, (caught) =>
          resolve(caught ? errorFromStatus(caught).reason : undefined),
        ),
      );
    expect(await load(maker)).toBe('PERMISSION_DENIED');
    expect(await load(clientWith(admin))).toBe('MODEL_UNSUPPORTED');
  });

  it('is stored as a hash only, in a file that is its owner’s', async () => {
    const text = await readFile(file, 'utf8');
    for (const token of [anna, ben, admin]) expect(text).not.toContain(token);
    expect((await readTokenFile(file)).map(({ name }) => name)).toContain('anna');
  });

  it('of a file with mistakes changes nothing', async () => {
    const good = await readFile(file, 'utf8');
    await writeFile(file, '{"tokens": [{"name": "a b"}]}');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(await errorOf(serverStatus(clientWith(anna), 5000))).toBeUndefined();
    await expect(readTokenFile(file)).rejects.toThrow(/TOKENS_FILE .*tokens.0.name must be 1 to 64 letters/s);
    await writeFile(file, good);
  });

  it('is one of a thousand at most, and never stands twice in its file', async () => {
    const other = join(folder, 'many.json');
    await addToken(other, { name: 'one', scopes: ['read'], limits: {} });
    const [entry] = await readTokenFile(other);
    const tokens = Array.from({ length: 1000 }, (_, i) => ({ ...entry, sha256: i.toString(16).padStart(64, '0') }));
    await writeFile(other, JSON.stringify({ tokens }));
    // The file stays one that can be read.
    await expect(addToken(other, { name: 'more', scopes: ['read'], limits: {} })).rejects.toThrow(
      /tokens: has more than 1000 entries/,
    );
    expect(await readTokenFile(other)).toHaveLength(1000);
    await writeFile(other, JSON.stringify({ tokens: [entry, { ...entry, revoked: entry?.created }] }));
    await expect(readTokenFile(other)).rejects.toThrow(/has a sha256 twice/);
  });

  it('keeps the link to its file, and the mode that lets the server read it', async () => {
    const [target, link] = [join(folder, 'target.json'), join(folder, 'link.json')];
    await writeFile(target, '{"tokens": []}');
    await chmod(target, 0o640);
    await symlink(target, link);
    await addToken(link, { name: 'one', scopes: ['read'], limits: {} });
    expect(await readlink(link)).toBe(target);
    expect((await stat(target)).mode & 0o777).toBe(0o640);
    expect(await readTokenFile(target)).toHaveLength(1);
  });

  it('of a file that cannot be one is told in a sentence', async () => {
    const other = join(folder, 'other.json');
    await mkdir(other);
    await expect(readTokenFile(other)).rejects.toThrow(`TOKENS_FILE ${other} is a folder; it must be a file`);
    await rm(other, { recursive: true });
    await writeFile(other, '\uFEFF{"tokens": []}\r\n');
    expect(await readTokenFile(other)).toEqual([]);
    await writeFile(other, '{"tokens": [');
    await expect(readTokenFile(other)).rejects.toThrow(/other.json is not JSON: /);
  });

  it('added by several commands at once is not lost', async () => {
    const before = (await readTokenFile(file)).length;
    await Promise.all(Array.from({ length: 8 }, (_, i) => newToken(`many-${i}`, ['read'])));
    expect(await readTokenFile(file)).toHaveLength(before + 8);
  });
});

describe('a job', () => {
  it('is its token’s alone; others do not learn that it exists', async () => {
    const [annas, bens, operators] = [clientWith(anna), clientWith(ben), clientWith(admin)];
    await outcomeOf(annas, { ...quick, jobId: 'shared-name' });
    expect(await jobOf(annas, 'shared-name')).toMatchObject({ owner: 'anna', jobId: 'shared-name' });
    for (const attempt of [jobOf, cancelOf]) {
      const error = await errorOf(attempt(bens, 'shared-name'));
      const unknown = await errorOf(jobOf(bens, 'never-seen1'));
      expect(error).toMatchObject({ reason: 'JOB_NOT_FOUND' });
      expect(error?.message).toBe(unknown?.message.replace('never-seen1', 'shared-name'));
    }
    expect(await watchOf(bens, 'shared-name')).toBe('JOB_NOT_FOUND');
    expect(await listOf(bens)).not.toContain('shared-name');
    expect(await listOf(annas)).toContain('shared-name');
    expect(await listOf(operators)).toContain('shared-name');
    expect(await jobOf(operators, 'shared-name')).toMatchObject({ owner: 'anna' });
  });

  it('has an id that another token may use for another job, at the same time', async () => {
    const [one, other] = await Promise.all([
      outcomeOf(clientWith(anna), { ...quick, jobId: 'same-id', seed: 1n }),
      outcomeOf(clientWith(ben), { ...quick, jobId: 'same-id', seed: 2n }),
    ]);
    expect([one.error, other.error]).toEqual([undefined, undefined]);
    expect(one.files[0]?.equals(other.files[0] as Buffer)).toBe(false);
  });

  it('of another token is cancelled by an admin, and the audit file has it', async () => {
    const running = outcomeOf(clientWith(anna), { ...slow, jobId: 'too-long' });
    await until(async () => (await listOf(clientWith(anna))).includes('too-long'));
    await cancelJob(clientWith(admin), 'too-long', 5000);
    expect((await running).error).toMatchObject({ reason: 'CANCELLED' });
    await until(async () => (await auditLines()).some(({ job_id }) => job_id === 'too-long'));
    expect((await auditLines()).find(({ job_id }) => job_id === 'too-long')).toMatchObject({
      kind: 'admin',
      token: 'operator',
      peer: '127.0.0.1',
      method: '/darkroom.v1.JobService/CancelJob',
      subject: 'anna',
    });
  });
});

describe('limits of a token', () => {
  it('hold the jobs in flight, with a delay, and name the limit', async () => {
    const client = clientWith(await newToken('one-by-one', ['generate', 'read'], { limits: { jobs: 1 } }));
    await until(async () => (await errorOf(serverStatus(client, 5000))) === undefined);
    const stop = new AbortController();
    const first = outcomeOf(client, slow, { signal: stop.signal });
    await until(async () => (await listOf(client)).length === 1);
    const { error } = await outcomeOf(client, quick);
    expect(error).toMatchObject({
      reason: 'RATE_LIMITED',
      status: 'RESOURCE_EXHAUSTED',
      retryAfterMs: 1000,
      info: { limit: 'jobs', bound: '1', token: 'one-by-one' },
    });
    stop.abort();
    await first;
    await until(async () => (await outcomeOf(client, quick)).error === undefined);
  });

  it('hold the jobs of a minute', async () => {
    const client = clientWith(await newToken('slowly', ['generate', 'read'], { limits: { jobsPerMinute: 2 } }));
    await until(async () => (await errorOf(serverStatus(client, 5000))) === undefined);
    const ends = [await outcomeOf(client, quick), await outcomeOf(client, quick), await outcomeOf(client, quick)];
    expect(ends.map(({ error }) => error?.info.limit)).toEqual([undefined, undefined, 'jobsPerMinute']);
    const delay = ends[2]?.error?.retryAfterMs ?? 0;
    expect(delay).toBeGreaterThan(30_000);
    expect(delay).toBeLessThanOrEqual(60_000);
  });

  it('hold the size of a job, for which no delay helps', async () => {
    const client = clientWith(await newToken('small', ['generate', 'read'], { limits: { pixels: 64 * 64 } }));
    await until(async () => (await errorOf(serverStatus(client, 5000))) === undefined);
    expect((await outcomeOf(client, quick)).error).toBeUndefined();
    const { error } = await outcomeOf(client, { ...quick, numImages: 3 });
    expect(error).toMatchObject({ reason: 'QUOTA_EXCEEDED', retryAfterMs: undefined });
    expect(error?.message).toBe('the job has 12288 pixels, token "small" may have 4096 (pixels); ask for less');
    expect(await errorOf(estimate(client, { ...quick, numImages: 3 }))).toMatchObject({ reason: 'QUOTA_EXCEEDED' });
  });

  it('let tokens take turns: a newcomer waits for the running job only', { timeout: 120_000 }, async () => {
    const enough = new AbortController();
    const many = Array.from({ length: 12 }, (_, i) =>
      outcomeOf(
        clientWith(anna),
        { ...quick, width: 256, height: 256, steps: 12, seed: BigInt(i), prompt: `a lake ${i}` },
        { signal: enough.signal },
      ),
    );
    await until(async () => (await serverStatus(clientWith(admin), 5000)).queuedJobs >= 6);
    const before = await serverStatus(clientWith(admin), 5000);
    const positions: number[] = [];
    const newcomer = await outcomeOf(
      clientWith(ben),
      { ...quick, steps: 3 },
      {
        onEvent: ({ event }) => {
          if (event?.$case === 'queued') positions.push(event.value.position);
        },
      },
    );
    expect(newcomer.error).toBeUndefined();
    expect(positions[0]).toBeLessThanOrEqual(before.runningJobs);
    const after = await serverStatus(clientWith(admin), 5000);
    expect(after.queuedJobs + after.runningJobs).toBeGreaterThan(0);
    enough.abort();
    await Promise.all(many);
  });
});

describe('the audit file', () => {
  it('has refused calls, a flood of them as one number', async () => {
    const stranger = clientWith('dkr_flood-of-calls');
    await Promise.all(Array.from({ length: 200 }, () => errorOf(serverStatus(stranger, 5000))));
    const mine = async () =>
      (await auditLines()).filter(
        ({ method, token, reason }) =>
          reason === 'UNAUTHENTICATED' && token === undefined && method === '/darkroom.v1.ModelService/GetServerStatus',
      );
    const total = async () => (await mine()).reduce((sum, { count = 1 }) => sum + Number(count), 0);
    await until(async () => (await total()) >= 200);
    expect((await mine()).length).toBeLessThan(40);
  });

  it('has a refused prompt by its rule and hash, without its text', async () => {
    const { error } = await outcomeOf(clientWith(anna), { ...quick, prompt: 'an explicit child', jobId: 'refused-1' });
    expect(error?.reason).toBe('POLICY');
    await until(async () => (await auditLines()).some(({ kind }) => kind === 'policy'));
    expect((await auditLines()).find(({ kind }) => kind === 'policy')).toMatchObject({
      token: 'anna',
      job_id: 'refused-1',
      rule: 'minors.explicit',
      // printf 'an explicit child' | sha256sum
      prompt_sha256: '92a60e1f0e941e7b5d651040eaf1424aa85e177f0ad73d06b5c5c7355e809f65',
    });
    expect(await readFile(audit, 'utf8')).not.toMatch(/child/);
  });
});

describe('tokens that change while jobs run', () => {
  it('end no stream: 20 of them go on, and new calls need the new token', { timeout: 120_000 }, async () => {
    const first = await newToken('rotating', ['generate', 'read']);
    const client = clientWith(first);
    await until(async () => (await errorOf(serverStatus(client, 5000))) === undefined);
    const streams = Array.from({ length: 20 }, (_, i) =>
      outcomeOf(client, {
        ...quick,
        steps: 8,
        width: 128,
        height: 128,
        seed: BigInt(i + 1),
        guidanceScale: 2 + i / 10,
        disconnectPolicy: DisconnectPolicy.DISCONNECT_POLICY_CANCEL,
      }),
    );
    await until(async () => (await listOf(client)).length === 20);
    await revokeTokens(file, 'rotating');
    const second = await newToken('rotating', ['generate', 'read']);
    await until(async () => (await errorOf(serverStatus(clientWith(first), 5000)))?.reason === 'UNAUTHENTICATED');
    // Jobs belong to the name, so the new token has them.
    expect(await listOf(clientWith(second))).toHaveLength(20);
    const ends = await Promise.all(streams);
    expect(ends.map(({ events, error }) => error?.reason ?? kinds(events).at(-1))).toEqual(ends.map(() => 'completed'));
    const events: string[] = [];
    await expect(
      (async () => {
        for await (const { event } of generate(client, quick)) events.push(event?.$case ?? '');
      })(),
    ).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
  });
});
