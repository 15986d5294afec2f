import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type {
  Admission,
  ClaimRequest,
  JobQueue,
  JobQueueOptions,
  LaneTurn,
  Lease,
} from '../../src/queue-bridge/queue/job-queue.js';
import { MemoryQueue } from '../../src/queue-bridge/queue/memory-queue.js';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { UpstashRunner } from '../../src/queue-bridge/queue/upstash-runner.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { startUpstashFront, type UpstashFront } from '../support/upstash-front.js';

let redis: RedisServer;
let front: UpstashFront;
beforeAll(async () => {
  redis = await startRedis();
  front = await startUpstashFront(redis.url);
});
afterAll(async () => {
  await front.stop();
  await redis.stop();
});

let stores = 0;
/** Each queue has its own keys. */
const open: Readonly<Record<string, (options: JobQueueOptions) => JobQueue>> = {
  memory: (options) => new MemoryQueue(options),
  'a real redis-server': (options) =>
    new ScriptQueue(new RedisRunner(redis.url, 60_000), { ...options, prefix: `t${++stores}:` }),
  "Upstash's REST": (options) =>
    new ScriptQueue(new UpstashRunner(front.url, front.token, 60_000), { ...options, prefix: `t${++stores}:` }),
};

describe.each(Object.keys(open))('a job queue in %s', (name) => {
  let queue: JobQueue;
  let lists: { sdxl: string; wan: string };
  const start = (options: Partial<JobQueueOptions> = {}) => {
    lists = { sdxl: `sdxl_${stores}_${name}`, wan: `wan_${stores}_${name}` };
    const create = open[name];
    if (create === undefined) throw new Error(name);
    const lanes = [
      { name: 'sdxl', queue: lists.sdxl },
      { name: 'wan', queue: lists.wan },
    ];
    queue = create({ lanes, callsBack: true, retentionMs: 60_000, ...options });
    return queue;
  };
  afterEach(() => queue.close());

  const job = (id: string, user = 'ann', lane: 'sdxl' | 'wan' = 'sdxl'): Admission => ({
    kind: 'job',
    id,
    user,
    lane,
    type: 'a_type',
  });
  /** Pushes and admits. */
  const add = async (...jobs: readonly Extract<Admission, { kind: 'job' }>[]) => {
    for (const { id, lane } of jobs) await queue.push(lists[lane as 'sdxl' | 'wan'], JSON.stringify({ id }));
    for (;;) {
      const { payloads } = await queue.poll();
      const [first] = payloads;
      if (first === undefined) return;
      const mine = payloads.filter(({ queue: list }) => list === first.queue);
      const entries = mine.map(({ sha1, raw }) => [sha1, byId(jobs, (JSON.parse(raw) as { id: string }).id)] as const);
      await queue.admit(first.queue, entries);
    }
  };
  const byId = (jobs: readonly Admission[], id: string): Admission => {
    const found = jobs.find((admission) => admission.kind === 'job' && admission.id === id);
    if (found === undefined) throw new Error(id);
    return found;
  };
  let tokens = 0;
  const turn: LaneTurn = { lane: 'sdxl', weight: 1, server: 's1', keeps: false };
  const claim = (request: Partial<ClaimRequest> = {}) =>
    queue.claim({
      token: `token-${name}-${++tokens}`,
      worker: 'w',
      leaseMs: 60_000,
      seed: 7,
      lanes: [
        { lane: 'sdxl', weight: 1, server: 's1', keeps: false },
        { lane: 'wan', weight: 1, server: 's1', keeps: false },
      ],
      ...request,
    });
  const claimed = async (request: Partial<ClaimRequest> = {}): Promise<Lease> => {
    const lease = await claim(request);
    if (lease === undefined) throw new Error('nothing to claim');
    return lease;
  };
  const finish = ({ id, token }: Lease, state: 'completed' | 'failed' | 'dead' = 'completed') =>
    queue.finish({ id, token, state, callback: `{"of":"${id}"}`, progress: '{}' });
  const deliver = async () => {
    const taken = await queue.takeDeliveries(`d-${++tokens}`, 10, 60_000);
    for (const { id, token } of taken) await queue.settle(id, token, { kind: 'delivered' });
    return taken.map(({ id, kind }) => `${id} ${kind}`);
  };
  const j = (id: string, user?: string, lane?: 'sdxl' | 'wan') =>
    job(id, user, lane) as Extract<Admission, { kind: 'job' }>;

  it('returns payloads in the order of their pushes, byte for byte', async () => {
    start();
    const texts = ['{"id":"ä","n":12345678901234567890}', 'not json', '{"a":"\\u0000 \u{1f98a}"}'];
    for (const text of texts) await queue.push(lists.sdxl, text);
    const { payloads } = await queue.poll();
    expect(payloads.map(({ raw, bytes }) => [raw, bytes])).toEqual(
      texts.map((text) => [text, Buffer.byteLength(text)]),
    );
  });

  it('admits a payload for one of two bridges, and reports to the other that it moved', async () => {
    start();
    await queue.push(lists.sdxl, '{"id":"a"}');
    const [payload] = (await queue.poll()).payloads;
    const entries = [[payload?.sha1 ?? '', job('a')]] as const;
    expect(await queue.admit(lists.sdxl, entries)).toEqual(['admitted']);
    expect(await queue.admit(lists.sdxl, entries)).toEqual(['moved']);
    expect((await queue.counts()).pushed).toBe(0);
  });

  it('claims for a server that takes no jobs only one that it has', async () => {
    start();
    await add(j('a', 'ann'), j('b', 'bob'), j('c', 'cay'));
    const [, b] = [await claimed(), await claimed({ lanes: [{ ...turn, server: 's2' }] })];
    expect(b.id).toBe('b');
    await queue.release({ id: 'b', token: b.token, isSpent: false, delayMs: 0, keepsServer: true, reason: 'stopped' });
    expect(await claim({ lanes: [{ ...turn, server: 's3', keeps: true }] })).toBeUndefined();
    const keeping = { lanes: [{ ...turn, server: 's2', keeps: true }] };
    expect(await claimed(keeping)).toMatchObject({ id: 'b', server: 's2' });
    expect(await claim(keeping)).toBeUndefined();
    expect((await claimed()).id).toBe('c');
  });

  it('finds a job that a server has behind older ones of its user, and behind those of many users', async () => {
    start();
    await add(j('old', 'ann'), j('kept', 'ann'));
    const old = await claimed();
    const kept = await claimed({ lanes: [{ ...turn, server: 's2' }] });
    await add(...Array.from({ length: 120 }, (_, i) => j(`of-${i}`, `user-${i}`)));
    const back = { isSpent: false, delayMs: 0, reason: 'stopped' };
    await queue.release({ id: 'old', token: old.token, keepsServer: false, ...back });
    await queue.release({ id: 'kept', token: kept.token, keepsServer: true, ...back });
    const keeping = { lanes: [{ ...turn, server: 's2', keeps: true }] };
    expect((await claimed(keeping)).id).toBe('kept');
    expect(await claim(keeping)).toBeUndefined();
  });

  it('forgets that a server had a job that was cancelled while it waited', async () => {
    start();
    await add(j('a'));
    const { token } = await claimed();
    await queue.release({ id: 'a', token, isSpent: false, delayMs: 0, keepsServer: true, reason: 'stopped' });
    await queue.cancel('a', '{}');
    expect(await claim({ lanes: [{ ...turn, keeps: true }] })).toBeUndefined();
  });

  it('claims a job with a lease: payload, first attempt, offered seed and offered server', async () => {
    start();
    await add(j('a'));
    expect(await claimed()).toMatchObject({
      id: 'a',
      payload: '{"id":"a"}',
      attempts: 1,
      run: 1,
      seed: 7,
      server: 's1',
      isCancelled: false,
    });
    expect(await claim()).toBeUndefined();
    expect((await queue.counts()).leased).toBe(1);
  });

  it('returns the same job to a claim that is repeated because its answer was lost', async () => {
    start();
    await add(j('a'), j('b'));
    const first = await claimed({ token: 'same' });
    const again = await claimed({ token: 'same' });
    expect([again.id, again.attempts]).toEqual([first.id, 1]);
  });

  it('keeps seed and server across attempts', async () => {
    start();
    await add(j('a'));
    const first = await claimed();
    await queue.release({
      id: 'a',
      token: first.token,
      isSpent: true,
      delayMs: 0,
      keepsServer: true,
      reason: 'crashed',
    });
    const elsewhere = { seed: 8, lanes: [{ lane: 'sdxl', weight: 1, server: 's2', keeps: false }] } as const;
    const second = await claimed(elsewhere);
    expect(second).toMatchObject({ seed: 7, server: 's1', attempts: 2, lastError: 'crashed' });
    // There is nothing left of the job on the first server.
    await queue.release({ id: 'a', token: second.token, isSpent: true, delayMs: 0, keepsServer: false, reason: '' });
    expect(await claimed(elsewhere)).toMatchObject({ seed: 7, server: 's2' });
  });

  it('does not count an attempt that was released unspent', async () => {
    start();
    await add(j('a'));
    const { token } = await claimed();
    expect(
      await queue.release({ id: 'a', token, isSpent: false, delayMs: 0, keepsServer: true, reason: 'drained' }),
    ).toBe('held');
    expect((await claimed()).attempts).toBe(1);
  });

  it('requeues jobs of expired leases at their old places', async () => {
    start();
    await add(j('a'), j('b'), j('c'));
    await claimed({ leaseMs: 1 });
    await claimed({ leaseMs: 1 });
    await sleep(10);
    await queue.poll();
    const order = [await claimed(), await claimed(), await claimed()].map(({ id }) => id);
    expect(order).toEqual(['a', 'b', 'c']);
  });

  it('rejects every write of a worker whose lease went to another', async () => {
    start();
    await add(j('a'));
    const stale = await claimed({ leaseMs: 1 });
    await sleep(10);
    await queue.poll();
    const lease = await claimed();
    const { id, token } = stale;
    expect([
      await queue.heartbeat({ id, token, leaseMs: 1000 }),
      await queue.record(id, token, { generated: '{}' }),
      await queue.release({ id, token, isSpent: true, delayMs: 0, keepsServer: true, reason: '' }),
      await finish(stale),
    ]).toEqual(['lost', 'lost', 'lost', 'lost']);
    expect(await finish(lease)).toBe('held');
  });

  it('keeps a lease for as long as it is renewed', async () => {
    start();
    await add(j('a'));
    const { id, token } = await claimed({ leaseMs: 200 });
    for (let i = 0; i < 6; i += 1) {
      await sleep(60);
      expect(await queue.heartbeat({ id, token, leaseMs: 200 })).toBe('held');
      await queue.poll();
    }
  });

  it('delays a job, and reports when it is due', async () => {
    start();
    await add(j('a'));
    const { token } = await claimed();
    await deliver();
    await queue.release({ id: 'a', token, isSpent: true, delayMs: 60, keepsServer: true, reason: 'later' });
    expect(await claim()).toBeUndefined();
    const { nextDueMs = 0 } = await queue.poll();
    expect(nextDueMs).toBeGreaterThan(0);
    expect(nextDueMs).toBeLessThanOrEqual(60);
    await sleep(80);
    expect((await queue.poll()).waiting).toEqual(['sdxl']);
    expect((await claimed()).attempts).toBe(2);
  });

  it('keeps a journal that the next worker finds', async () => {
    start();
    await add(j('a'));
    const { token } = await claimed();
    await queue.record('a', token, { generated: '{"g":1}', 'upload:0': '{"u":0}', 'upload:2': '{"u":2}' });
    await queue.release({ id: 'a', token, isSpent: true, delayMs: 0, keepsServer: true, reason: '' });
    const { generated, uploads } = await claimed();
    expect([generated, [...uploads].sort()]).toEqual([
      '{"g":1}',
      [
        [0, '{"u":0}'],
        [2, '{"u":2}'],
      ],
    ]);
  });

  it('serves users in turn: one job of a user does not wait for the hundred of another', async () => {
    start();
    await add(...Array.from({ length: 20 }, (_, i) => j(`a${i}`, 'ann')), j('b0', 'bob'), j('b1', 'bob'));
    const order: string[] = [];
    for (let i = 0; i < 6; i += 1) order.push((await claimed()).id);
    expect(order).toEqual(['a0', 'b0', 'a1', 'b1', 'a2', 'a3']);
  });

  it('shares claims between lanes by weight, without credit for a lane that was empty', async () => {
    start();
    const sdxl = Array.from({ length: 12 }, (_, i) => j(`s${i}`));
    const wan = Array.from({ length: 6 }, (_, i) => j(`w${i}`, 'ann', 'wan'));
    const weights = [
      { lane: 'sdxl', weight: 3, server: 's1', keeps: false },
      { lane: 'wan', weight: 1, server: 's1', keeps: false },
    ] as const;
    await add(...sdxl.slice(0, 4));
    for (let i = 0; i < 4; i += 1) await claimed({ lanes: weights });
    await add(...sdxl.slice(4), ...wan);
    const order: string[] = [];
    for (let i = 0; i < 8; i += 1) order.push((await claimed({ lanes: weights })).id.slice(0, 1));
    expect(order.filter((lane) => lane === 'w')).toHaveLength(2);
    expect(order.slice(0, 4)).toContain('w');
  });

  it('claims from the requested lanes only', async () => {
    start();
    await add(j('s'), j('w', 'ann', 'wan'));
    expect((await queue.poll()).waiting).toEqual(['sdxl', 'wan']);
    expect((await claimed({ lanes: [{ lane: 'wan', weight: 1, server: 's1', keeps: false }] })).id).toBe('w');
    expect(await claim({ lanes: [{ lane: 'wan', weight: 1, server: 's1', keeps: false }] })).toBeUndefined();
  });

  it('keeps jobs of lanes that it does not have for other bridges', async () => {
    start();
    await queue.push(lists.sdxl, '{"id":"p"}');
    const [payload] = (await queue.poll()).payloads;
    await queue.admit(lists.sdxl, [[payload?.sha1 ?? '', { ...j('p'), lane: 'paint' }]]);
    expect((await queue.poll()).waiting).toEqual([]);
    expect((await queue.counts()).waiting).toBe(1);
    expect(await claim()).toBeUndefined();
    expect(await claimed({ lanes: [{ lane: 'paint', weight: 1, server: 's1', keeps: false }] })).toMatchObject({
      lane: 'paint',
    });
  });

  it('reads a list that two lanes share only once', async () => {
    const list = `shared_${stores}_${name}`;
    const lanes = ['sdxl', 'wan'].map((lane) => ({ name: lane, queue: list }));
    start({ lanes });
    await queue.push(list, '{"id":"a"}');
    expect((await queue.poll()).payloads).toHaveLength(1);
    expect((await queue.counts()).pushed).toBe(1);
  });

  it('runs a job that was pushed twice once', async () => {
    start();
    await add(j('a'));
    await add(j('a'));
    const lease = await claimed();
    expect(await claim()).toBeUndefined();
    await add(j('a'));
    await finish(lease);
    await deliver();
    expect(await queue.show('a')).toMatchObject({ state: 'completed', pushed: '3', attempts: '1' });
  });

  it('repeats the callback of a job that is pushed again after its end', async () => {
    start();
    await add(j('a'));
    await finish(await claimed());
    expect(await deliver()).toEqual(['a terminal']);
    await add(j('a'));
    expect(await deliver()).toEqual(['a terminal']);
    expect(await deliver()).toEqual([]);
  });

  it('delivers callbacks in order: processing, then terminal', async () => {
    start();
    await add(j('a'));
    const lease = await claimed();
    expect(await deliver()).toEqual(['a processing']);
    expect(await deliver()).toEqual([]);
    await finish(lease);
    const [delivery] = await queue.takeDeliveries('d', 10, 1000);
    expect(delivery).toMatchObject({
      kind: 'terminal',
      callback: '{"of":"a"}',
      type: 'a_type',
      user: 'ann',
      attempts: 0,
    });
  });

  it('never delivers processing once the terminal callback is due', async () => {
    start();
    await add(j('a'), j('b'));
    // A callback without an attempt, and one with a failed attempt.
    await finish(await claimed());
    expect(await deliver()).toEqual(['a terminal']);
    const b = await claimed();
    const [processing] = await queue.takeDeliveries('d2', 10, 60_000);
    expect(processing?.kind).toBe('processing');
    await queue.settle('b', 'd2', { kind: 'retry', delayMs: 60_000, reason: '503' });
    await finish(b);
    expect(await deliver()).toEqual(['b terminal']);
    expect(await queue.show('b')).toMatchObject({ pcb: 'dropped', cb: 'delivered' });
  });

  it('holds the terminal callback back while processing is in flight', async () => {
    start();
    await add(j('a'));
    const lease = await claimed();
    await queue.takeDeliveries('d1', 10, 60_000);
    await finish(lease);
    expect(await deliver()).toEqual([]);
    await queue.settle('a', 'd1', { kind: 'retry', delayMs: 60_000, reason: 'timeout' });
    expect(await deliver()).toEqual(['a terminal']);
  });

  it("gives a delivery to another worker when its lease expires, and rejects the first worker's result", async () => {
    start();
    await add(j('a'));
    await finish(await claimed());
    await queue.takeDeliveries('gone', 10, 1);
    await sleep(10);
    const [delivery] = await queue.takeDeliveries('next', 10, 60_000);
    expect(delivery?.kind).toBe('terminal');
    expect(await queue.settle('a', 'gone', { kind: 'delivered' })).toBe('lost');
    expect(await queue.settle('a', 'next', { kind: 'delivered' })).toBe('held');
    expect((await queue.counts()).callbacks).toBe(0);
  });

  it('retries a callback when it is due, and counts the attempts', async () => {
    start();
    await add(j('a'));
    await finish(await claimed());
    await queue.takeDeliveries('d1', 10, 60_000);
    await queue.settle('a', 'd1', { kind: 'retry', delayMs: 40, reason: '503' });
    expect(await deliver()).toEqual([]);
    await sleep(60);
    const [delivery] = await queue.takeDeliveries('d2', 10, 60_000);
    expect(delivery?.attempts).toBe(1);
    expect(delivery?.ageMs).toBeGreaterThanOrEqual(40);
  });

  it('lists callbacks that were given up, and replays them', async () => {
    start();
    await add(j('a'));
    await finish(await claimed());
    await queue.takeDeliveries('d1', 10, 60_000);
    await queue.settle('a', 'd1', { kind: 'dead', reason: '404' });
    expect((await queue.deadLetters(10)).callbacks).toEqual(['a']);
    expect(await queue.replay('a', false)).toBe('calls back');
    expect(await deliver()).toEqual(['a terminal']);
    expect((await queue.deadLetters(10)).callbacks).toEqual([]);
  });

  it('lists dead jobs, and runs them again with a new run number and the same seed', async () => {
    start();
    await add(j('a'));
    const lease = await claimed();
    await queue.record('a', lease.token, { generated: '{}', 'upload:0': '{}' });
    await finish(lease, 'dead');
    await deliver();
    expect((await queue.deadLetters(10)).jobs).toEqual(['a']);
    expect(await queue.replay('a', false)).toBe('runs');
    expect(await claimed({ seed: 8 })).toMatchObject({
      run: 2,
      attempts: 1,
      seed: 7,
      generated: undefined,
      uploads: new Map(),
    });
    expect(await deliver()).toEqual(['a processing']);
    expect((await queue.deadLetters(10)).jobs).toEqual([]);
    expect([await queue.replay('a', false), await queue.replay('b', false)]).toEqual(['not ended', 'unknown']);
  });

  it('ends a payload that cannot run with a callback, and keeps one without an id with the reason', async () => {
    start();
    await queue.push(lists.sdxl, 'not json');
    await queue.push(lists.sdxl, '{"id":"a","type":7}');
    const { payloads } = await queue.poll();
    const admissions: Admission[] = [
      { kind: 'rejected', record: '{"reason":"not JSON"}', problem: 'not JSON' },
      {
        kind: 'refused',
        id: 'a',
        user: 'ann',
        lane: 'sdxl',
        type: '',
        callback: '{"failed":true}',
        problem: 'no type',
      },
    ];
    const entries = payloads.map(({ sha1 }, i) => [sha1, admissions[i]] as [string, Admission]);
    expect(await queue.admit(lists.sdxl, entries)).toEqual(['rejected', 'refused']);
    expect((await queue.deadLetters(10)).rejected).toEqual(['{"reason":"not JSON"}']);
    const [delivery] = await queue.takeDeliveries('d', 10, 1000);
    expect(delivery).toMatchObject({ id: 'a', kind: 'terminal', callback: '{"failed":true}' });
    expect(await claim()).toBeUndefined();
  });

  it('cancels a waiting job at once, a running one through its worker, and one that has not come when it comes', async () => {
    start();
    await add(j('a'), j('b'));
    const running = await claimed();
    expect(await queue.cancel('b', '{"cancelled":"b"}')).toBe('cancelled');
    expect(await claim()).toBeUndefined();
    expect(await queue.cancel('a', '')).toBe('asked');
    expect(await queue.heartbeat({ id: 'a', token: running.token, leaseMs: 1000 })).toBe('cancelled');
    expect(await queue.cancel('c', '')).toBe('noted');
    await add(j('c'));
    expect((await claimed()).isCancelled).toBe(true);
    await finish(running);
    expect(await queue.cancel('a', '')).toBe('ended');
    expect(await queue.show('b')).toMatchObject({ state: 'cancelled', callback: '{"cancelled":"b"}' });
  });

  it('lists jobs, newest first, all of them or those of a state', async () => {
    start();
    await add(j('a'), j('b'), j('c'));
    await claimed();
    expect((await queue.list(10)).map(({ id }) => id)).toEqual(['c', 'b', 'a']);
    expect((await queue.list(10, 'waiting')).map(({ id }) => id)).toEqual(['c', 'b']);
    await claimed();
    expect((await queue.list(10, 'leased')).map(({ id }) => id)).toEqual(['b', 'a']);
    expect((await queue.list(1, 'leased')).map(({ id }) => id)).toEqual(['b']);
    expect(await queue.list(1)).toHaveLength(1);
    expect(await queue.counts()).toEqual({
      pushed: 0,
      waiting: 1,
      delayed: 0,
      leased: 2,
      callbacks: 2,
      dead: 0,
      deadCallbacks: 0,
      rejected: 0,
      usage: 0,
      deadUsage: 0,
    });
    expect(await queue.show('nobody')).toBeUndefined();
  });

  it('counts the waiting jobs of each user over all lanes, most first', async () => {
    start();
    await add(j('a', 'ann'), j('b', 'ben'), j('c', 'cid'), j('d', 'cid'));
    await add(j('e', 'cid', 'wan'), j('f', 'ben', 'wan'));
    await claimed();
    expect(await queue.lines(10)).toEqual([
      { user: 'cid', waiting: 3 },
      { user: 'ben', waiting: 2 },
    ]);
    expect(await queue.lines(1)).toEqual([{ user: 'cid', waiting: 3 }]);
  });

  it('removes an ended job after its retention, so that its id may run again', async () => {
    start({ retentionMs: 20 });
    await add(j('a'));
    await finish(await claimed());
    await deliver();
    await sleep(40);
    await queue.poll();
    expect(await queue.show('a')).toBeUndefined();
    await add(j('a'));
    expect((await claimed()).attempts).toBe(1);
  });

  it('does not use the outbox without callbacks', async () => {
    start({ callsBack: false });
    await add(j('a'));
    await finish(await claimed());
    expect((await queue.poll()).dueDeliveries).toBe(0);
    expect(await queue.show('a')).toMatchObject({ state: 'completed', callback: '{"of":"a"}' });
  });

  const finishWithUsage = ({ id, token }: Lease, state: 'completed' | 'dead' = 'completed') =>
    queue.finish({ id, token, state, callback: '{}', progress: '{}', usage: `{"usage":"${id}"}` });

  it('keeps a usage record of each run until it is delivered, once, whatever becomes of the job', async () => {
    start();
    const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
    await add({ ...j('a'), traceparent });
    const first = await claimed();
    // The end is repeated because its answer was lost.
    expect([await finishWithUsage(first, 'dead'), await finishWithUsage(first, 'dead')]).toEqual(['held', 'held']);
    expect(await queue.replay('a', false)).toBe('runs');
    await finishWithUsage(await claimed());
    expect((await queue.poll()).dueUsage).toBe(2);
    const taken = await queue.takeUsage('u1', 10, 60_000);
    expect(taken.map(({ id, run, body, attempts, traceparent: trace }) => [id, run, body, attempts, trace])).toEqual([
      ['a', 1, '{"usage":"a"}', 0, traceparent],
      ['a', 2, '{"usage":"a"}', 0, traceparent],
    ]);
    expect(await queue.takeUsage('u2', 10, 60_000)).toEqual([]);
    for (const delivery of taken) expect(await queue.settleUsage(delivery, { kind: 'delivered' })).toBe('held');
    expect(await queue.settleUsage(taken[0] ?? first, { kind: 'delivered' })).toBe('lost');
    expect((await queue.counts()).usage).toBe(0);
  });

  it('retries usage records, gives them to another worker when a lease expires, and makes dead ones due on replay', async () => {
    start();
    await add(j('a'));
    await finishWithUsage(await claimed());
    const [stale] = await queue.takeUsage('gone', 10, 1);
    await sleep(10);
    const [taken] = await queue.takeUsage('next', 10, 60_000);
    if (stale === undefined || taken === undefined) throw new Error('no usage record');
    expect(await queue.settleUsage(stale, { kind: 'delivered' })).toBe('lost');
    await queue.settleUsage(taken, { kind: 'retry', delayMs: 1000, reason: '503' });
    expect(await queue.takeUsage('early', 10, 60_000)).toEqual([]);
    await sleep(1100);
    const [again] = await queue.takeUsage('later', 10, 60_000);
    expect(again?.attempts).toBe(1);
    if (again !== undefined) await queue.settleUsage(again, { kind: 'dead', reason: '404' });
    expect((await queue.deadLetters(10)).usage).toEqual(['a:1']);
    expect(await queue.counts()).toMatchObject({ usage: 0, deadUsage: 1 });
    await queue.replay('a', true);
    expect((await queue.takeUsage('replayed', 10, 60_000)).map(({ id }) => id)).toEqual(['a']);
    expect((await queue.deadLetters(10)).usage).toEqual([]);
  });

  it('does not let a usage record that waits for its receiver hide when a callback is due', async () => {
    start();
    await add(j('a'));
    await finishWithUsage(await claimed());
    await queue.takeDeliveries('d', 10, 60_000);
    await queue.settle('a', 'd', { kind: 'retry', delayMs: 30_000, reason: '503' });
    const { nextDueMs = 0, dueUsage } = await queue.poll();
    expect(dueUsage).toBe(1);
    expect(nextDueMs).toBeGreaterThan(0);
    const { oldestCallbackMs, oldestUsageMs } = await queue.measure();
    expect([oldestCallbackMs, oldestUsageMs]).toEqual([expect.any(Number), expect.any(Number)]);
  });

  it('keeps the trace of a payload, else the one that the first claim began', async () => {
    start();
    const [own, offered, late] = ['1', '2', '3'].map((n) => `00-${n.repeat(32)}-${n.repeat(16)}-01`);
    await add({ ...j('a'), traceparent: own }, j('b'));
    expect((await claimed({ traceparent: offered })).traceparent).toBe(own);
    const b = await claimed({ traceparent: offered });
    expect(b.traceparent).toBe(offered);
    await queue.release({ id: 'b', token: b.token, isSpent: true, delayMs: 0, keepsServer: true, reason: '' });
    expect((await claimed({ traceparent: late })).traceparent).toBe(offered);
    const traces = (await queue.takeDeliveries('d', 10, 60_000)).map(({ id, traceparent }) => [id, traceparent]);
    expect(traces).toEqual([
      ['a', own],
      ['b', offered],
    ]);
  });

  it('accepts the end of a job twice from the same worker, because an answer may be lost', async () => {
    start();
    await add(j('a'));
    const lease = await claimed();
    expect([await finish(lease), await finish(lease)]).toEqual(['held', 'held']);
    expect(await deliver()).toEqual(['a terminal']);
  });

  it.skipIf(name === "Upstash's REST")(
    'wakes waiting workers on a push, and leaves the payload in its list',
    async () => {
      start();
      const never = new AbortController();
      const woken = queue.waitForPush(never.signal);
      await sleep(20);
      await queue.push(lists.wan, 'x');
      await woken;
      await queue.push(lists.wan, 'y');
      await queue.waitForPush(never.signal);
      expect((await queue.poll()).payloads.map(({ raw }) => raw)).toEqual(['x', 'y']);
    },
  );
});

describe('a queue in Redis', () => {
  it('continues after Redis was killed and restarted', async () => {
    const own = await startRedis();
    const queue = new ScriptQueue(new RedisRunner(own.url, 60_000), {
      lanes: [{ name: 'sdxl', queue: 'q' }],
      callsBack: true,
      retentionMs: 1000,
      prefix: 'p:',
    });
    await queue.poll();
    const crashed = own.crash();
    // A poll while Redis is down.
    expect((await queue.poll()).payloads).toEqual([]);
    await crashed;
    await queue.push('q', 'x');
    expect((await queue.poll()).payloads).toHaveLength(1);
    await queue.close();
    await own.stop();
  });

  it('hands jobs to bridges by their lanes, whichever bridge admitted them', async () => {
    const prefix = `t${++stores}:`;
    const queueOf = (name: string, lanes: readonly string[]) =>
      new ScriptQueue(new RedisRunner(redis.url, 60_000), {
        lanes: lanes.map((lane) => ({ name: lane, queue: `${prefix}${name}` })),
        callsBack: true,
        retentionMs: 1000,
        prefix,
      });
    const [images, both] = [queueOf('images', ['sdxl']), queueOf('both', ['wan', 'paint'])];
    await images.push(`${prefix}images`, '{"id":"p"}');
    const [payload] = (await images.poll()).payloads;
    const admission = { kind: 'job', id: 'p', user: 'ann', lane: 'paint', type: 't' } as const;
    await images.admit(`${prefix}images`, [[payload?.sha1 ?? '', admission]]);
    expect([(await images.poll()).waiting, (await both.poll()).waiting]).toEqual([[], ['paint']]);
    expect([(await images.counts()).waiting, (await both.counts()).waiting]).toEqual([1, 1]);
    const turn = { lane: 'paint', weight: 1, server: 's', keeps: false } as const;
    expect(await both.claim({ token: 't', worker: 'w', leaseMs: 1000, seed: 1, lanes: [turn] })).toMatchObject({
      id: 'p',
    });
    await Promise.all([images.close(), both.close()]);
  });

  it('continues jobs of an older version, which kept no set of lanes', async () => {
    const prefix = `t${++stores}:`;
    const reader = createClient({ url: redis.url });
    await reader.connect();
    const list = `${prefix}wan`;
    const lanes = [{ name: 'wan', queue: list }];
    const queue = new ScriptQueue(new RedisRunner(redis.url, 60_000), {
      lanes,
      callsBack: true,
      retentionMs: 1000,
      prefix,
    });
    await queue.push(list, '{"id":"old"}');
    const [payload] = (await queue.poll()).payloads;
    await queue.admit(list, [[payload?.sha1 ?? '', { kind: 'job', id: 'old', user: 'ann', lane: 'wan', type: 't' }]]);
    await reader.del(`${prefix}lanes`);
    expect((await reader.keys(`${prefix}*`)).sort()).toEqual(
      ['job:old', 'jobs', 'line:wan:ann', 'seq', 'turn', 'users:wan'].map((key) => `${prefix}${key}`),
    );
    expect([(await queue.poll()).waiting, (await queue.counts()).waiting]).toEqual([['wan'], 1]);
    reader.destroy();
    await queue.close();
  });

  it('keeps the progress for a while, and publishes it', async () => {
    const options = {
      lanes: [{ name: 'sdxl', queue: 'progress' }],
      callsBack: true,
      retentionMs: 1000,
      prefix: 'progress:',
    };
    const queue = new ScriptQueue(new RedisRunner(redis.url, 60_000), options);
    const reader = createClient({ url: redis.url });
    await reader.connect();
    const subscriber = reader.duplicate();
    await subscriber.connect();
    const heard: string[] = [];
    await subscriber.subscribe('progress:progress:a', (message) => void heard.push(message));
    await queue.push('progress', 'x');
    const [payload] = (await queue.poll()).payloads;
    const admission = { kind: 'job', id: 'a', user: 'ann', lane: 'sdxl', type: 't' } as const;
    await queue.admit('progress', [[payload?.sha1 ?? '', admission]]);
    const turn = { lane: 'sdxl', weight: 1, server: 's', keeps: false } as const;
    await queue.claim({ token: 't', worker: 'w', leaseMs: 1000, seed: 1, lanes: [turn] });
    await queue.heartbeat({ id: 'a', token: 't', leaseMs: 1000, progress: '{"fraction":0.5}' });
    await queue.finish({ id: 'a', token: 't', state: 'completed', callback: '{}', progress: '{"fraction":1}' });
    expect(await reader.get('progress:progress:a')).toBe('{"fraction":1}');
    expect(await reader.pTTL('progress:progress:a')).toBeGreaterThan(0);
    await expect.poll(() => heard).toEqual(['{"fraction":0.5}', '{"fraction":1}']);
    subscriber.destroy();
    reader.destroy();
    await queue.close();
  });

  it('reports a rejected password at once, and a missing Redis after its patience', async () => {
    const locked = await startRedis();
    const admin = createClient({ url: locked.url });
    await admin.connect();
    await admin.configSet('requirepass', 'secret');
    const options = { lanes: [{ name: 'sdxl', queue: 'q' }], callsBack: true, retentionMs: 1000, prefix: 'p:' };
    const stranger = new ScriptQueue(new RedisRunner(locked.url.replace('//', '//:wrong@'), 60_000), options);
    await expect(stranger.counts()).rejects.toThrow(/^Redis \(REDIS_URL\) refused: WRONGPASS/);
    await stranger.close();
    admin.destroy();
    await locked.stop();
    const alone = new ScriptQueue(new RedisRunner(locked.url, 2000), options);
    await expect(alone.counts()).rejects.toThrow(/^Redis \(REDIS_URL\) does not answer: connect ECONNREFUSED/);
    await alone.close();
  });

  it('names the store that rejects its token', async () => {
    const queue = new ScriptQueue(new UpstashRunner(front.url, 'wrong', 60_000), {
      lanes: [{ name: 'sdxl', queue: 'q' }],
      callsBack: true,
      retentionMs: 1000,
      prefix: 'p:',
    });
    await expect(queue.push('q', 'a secret prompt')).rejects.toThrow(
      /^Upstash \(UPSTASH_REDIS_REST_URL\) refused: WRONGPASS invalid or missing auth token$/,
    );
  });
});
