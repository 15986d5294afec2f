import { expect, it } from 'vitest';
import { Semaphore } from '../../src/std/semaphore.js';

it('a semaphore gives keys their turns one after the other, and leaves permits to others', async () => {
  const semaphore = new Semaphore(2, 1);
  const started: string[] = [];
  const ends = new Map<string, () => void>();
  const run = (name: string) =>
    semaphore.run(
      () => {
        started.push(name);
        return new Promise<void>((resolve) => {
          ends.set(name, resolve);
        });
      },
      { key: name.slice(0, 1) },
    );
  const all = Promise.all(['a1', 'a2', 'a3', 'b1', 'c1', 'c2'].map(run));
  // The second permit is not for a.
  expect(started).toEqual(['a1', 'b1']);
  for (const [end, next] of [
    ['b1', 'c1'],
    ['a1', 'a2'],
    ['c1', 'c2'],
    ['a2', 'a3'],
  ] as const) {
    ends.get(end)?.();
    await expect.poll(() => started.at(-1)).toBe(next);
  }
  for (const end of ends.values()) end();
  await all;
});

it('a semaphore runs as many tasks as it has permits, in order, also after one that failed', async () => {
  const semaphore = new Semaphore(2);
  const ends: (() => void)[] = [];
  const started: string[] = [];
  const run = (name: string) =>
    semaphore.run(() => {
      started.push(name);
      return new Promise<string>((resolve, reject) => {
        ends.push(() => (name === 'a' ? reject(new Error(name)) : resolve(name)));
      });
    });
  const results = Promise.allSettled(['a', 'b', 'c', 'd'].map(run));
  expect(started).toEqual(['a', 'b']);
  ends[0]?.();
  await expect.poll(() => started).toEqual(['a', 'b', 'c']);
  ends[1]?.();
  await expect.poll(() => started).toEqual(['a', 'b', 'c', 'd']);
  for (const end of ends) end();
  expect((await results).map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled', 'fulfilled']);
});
