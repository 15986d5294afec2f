import { expect, it } from 'vitest';
import { Semaphore } from '../../src/std/semaphore.js';

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
