import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';
import { expect, it, onTestFinished } from 'vitest';
import {
  type JournalFields,
  journalFields,
  readableFields,
  shownFields,
} from '../../src/queue-bridge/queue/journal-fields.js';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { loadScripts } from '../../src/queue-bridge/queue/scripts.js';
import { startRedis } from '../support/redis-server.js';

/** What Redis' MONITOR shows of a journal: the fields that a command writes. */
function fieldsWritten([command = '', key = '', ...args]: readonly string[]): readonly string[] {
  if (!key.startsWith('f:job:')) return [];
  if (command === 'HSET') return args.filter((_, i) => i % 2 === 0);
  return command === 'HSETNX' || command === 'HINCRBY' ? args.slice(0, 1) : [];
}

it('the table of journal fields has every field that a script writes, with these scripts', async () => {
  const redis = await startRedis();
  const client = createClient({ url: redis.url, RESP: 2 });
  await client.connect();
  const names = new Map<string, string>();
  for (const [name, { source, sha1 }] of Object.entries(loadScripts())) {
    // Loaded, they are all called by their hash.
    await client.scriptLoad(source);
    names.set(sha1, name);
  }
  const monitor = client.duplicate();
  await monitor.connect();
  const written: Record<string, Set<string>> = {};
  let script = '';
  let isOver = false;
  await monitor.monitor((line) => {
    const words = [...String(line).matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word = '']) => word);
    const [command = '', first = ''] = words;
    if (command.toLowerCase() === 'evalsha') script = names.get(first) ?? '';
    if (command === 'ECHO') isOver = true;
    if (!/^\S+ \[\d+ lua\]/.test(String(line))) return;
    for (const field of fieldsWritten([command.toUpperCase(), ...words.slice(1)])) {
      const name = field.replace(/^upload:\d+$/, 'upload:<index>');
      written[name] = (written[name] ?? new Set()).add(script);
    }
  });
  const queue = new ScriptQueue(new RedisRunner(redis.url, 60_000), {
    lanes: [{ name: 'sdxl', queue: 'list' }],
    callsBack: true,
    retentionMs: 60_000,
    prefix: 'f:',
  });
  onTestFinished(async () => {
    await queue.close();
    client.destroy();
    monitor.destroy();
    await redis.stop();
  });

  let tokens = 0;
  const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
  const admit = async (id: string, kind: 'job' | 'refused' = 'job') => {
    await queue.push('list', `{"id":"${id}"}`);
    const [payload] = (await queue.poll()).payloads;
    const common = { id, user: 'ann', lane: 'sdxl', type: 't', ...(id === 'a' && { traceparent }) };
    const admission = kind === 'job' ? { kind, ...common } : { kind, ...common, callback: '{}', problem: 'no prompt' };
    await queue.admit('list', [[payload?.sha1 ?? '', admission]]);
  };
  const claim = async (leaseMs = 60_000) => {
    const lanes = [{ lane: 'sdxl', weight: 1, server: 's', keeps: false }];
    const token = `t${++tokens}`;
    await queue.claim({ token, worker: 'w', leaseMs, seed: 1, traceparent, lanes });
    return token;
  };
  const settle = async (settlement: Parameters<ScriptQueue['settle']>[2]) => {
    for (const { id, token } of await queue.takeDeliveries(`d${++tokens}`, 10, 60_000)) {
      await queue.settle(id, token, settlement);
    }
  };
  const finish = (id: string, token: string, state: 'completed' | 'dead') =>
    queue.finish({ id, token, state, callback: '{}', progress: '{}', isSpent: state !== 'dead' });

  // A job that is released, expires, completes, is pushed again and replayed.
  await admit('a');
  const first = await claim();
  await queue.record('a', first, { server: 's2', server_job: 'a:2', generated: '{}', 'upload:0': '{}' });
  await settle({ kind: 'retry', delayMs: 0, reason: '503' });
  await queue.release({ id: 'a', token: first, isSpent: false, delayMs: 0, keepsServer: false, reason: 'r' });
  const second = await claim();
  await settle({ kind: 'delivered' });
  await queue.release({ id: 'a', token: second, isSpent: true, delayMs: 1, keepsServer: true, reason: 'r' });
  await sleep(10);
  await queue.poll();
  await claim(1);
  await sleep(10);
  await queue.poll();
  await finish('a', await claim(), 'completed');
  await settle({ kind: 'delivered' });
  await admit('a');
  expect(await queue.replay('a', true)).toBe('calls back');
  // One that is given up, with its callback, and run again.
  await settle({ kind: 'delivered' });
  await admit('b');
  await finish('b', await claim(), 'dead');
  await settle({ kind: 'dead', reason: '404' });
  expect(await queue.replay('b', false)).toBe('runs');
  // One that cannot run, and one that is cancelled.
  await admit('c', 'refused');
  await admit('d');
  expect(await queue.cancel('d', '{}')).toBe('cancelled');
  await client.echo('over');
  await expect.poll(() => isOver).toBe(true);

  const found = Object.fromEntries(Object.entries(written).map(([field, scripts]) => [field, [...scripts].sort()]));
  const wanted = Object.entries(journalFields).map(([field, { writers }]) => [field, [...writers].sort()]);
  expect(found).toEqual(Object.fromEntries(wanted));
});

it('darkroom jobs shows a journal without the bookkeeping of the bridge', () => {
  const fields: JournalFields = { id: 'a', token: 't', seq: '1', cb: 'due', cb_token: 'd', 'upload:0': '{}' };
  expect(shownFields(fields)).toEqual({ id: 'a', cb: 'due', 'upload:0': '{}' });
});

it('darkroom jobs shows a field that a newer version wrote, behind the others', () => {
  const fields = { later: 'x', id: 'a', 'upload:0': '{}' } as JournalFields;
  expect(Object.entries(shownFields(fields))).toEqual(Object.entries({ id: 'a', 'upload:0': '{}', later: 'x' }));
});

it('darkroom jobs show says when and what, in the order of a life', () => {
  const fields: JournalFields = {
    ...{ callback: '{"job_id":"a"}', cb_since: '1795845813642', 'upload:1': '{"url":"b"}', 'upload:0': '{"url":"a"}' },
    ...{ state: 'completed', payload: 'no JSON', created_at: '1795845813000', id: 'a', seed: '7', cb_token: 'd' },
  };
  expect(Object.entries(readableFields(fields))).toEqual([
    ['id', 'a'],
    ['payload', 'no JSON'],
    ['created_at', '2026-11-28T06:03:33.000Z'],
    ['state', 'completed'],
    ['seed', '7'],
    ['upload:1', { url: 'b' }],
    ['upload:0', { url: 'a' }],
    ['callback', { job_id: 'a' }],
    ['cb_since', '2026-11-28T06:03:33.642Z'],
  ]);
});
