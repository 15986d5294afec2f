import { describe, expect, it } from 'vitest';
import { FairQueue } from '../../../src/server/jobs/fair-queue.js';

describe('turns between owners', () => {
  const queueOf = (...items: string[]) => {
    const queue = new FairQueue<string>();
    for (const item of items) queue.add(item, item.slice(0, 1));
    return queue;
  };
  const takeAll = (queue: FairQueue<string>, count = Number.POSITIVE_INFINITY) => {
    const taken: string[] = [];
    for (let [first] = queue; first !== undefined && taken.length < count; [first] = queue) {
      queue.take(first);
      taken.push(first);
    }
    return taken.join(' ');
  };

  it('takes one item of each, and the items of one in their order', () => {
    expect(takeAll(queueOf('a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1'))).toBe('a1 b1 c1 a2 b2 a3 a4');
  });

  it('takes the first item of a newcomer next, and its second one in turn', () => {
    const queue = queueOf('a1', 'a2', 'a3', 'b1', 'b2', 'b3');
    expect(takeAll(queue, 2)).toBe('a1 b1');
    expect(queue.add('c1', 'c')).toBe(0);
    queue.add('c2', 'c');
    expect(takeAll(queue)).toBe('c1 a2 b2 c2 a3 b3');
  });

  it('gives who asks for one at a time, again and again, no more turns than the others', () => {
    const queue = queueOf('a1', 'a2', 'a3', 'a4');
    const taken: string[] = [];
    for (let i = 1; i <= 4; i += 1) {
      if (![...queue].some((item) => item.startsWith('b'))) queue.add(`b${i}`, 'b');
      taken.push(takeAll(queue, 1));
    }
    expect(taken.filter((item) => item.startsWith('a'))).toHaveLength(2);
  });

  it('loses no turn of an owner that gives up some of its items', () => {
    const queue = queueOf('a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'b3');
    expect(queue.remove('a1')).toBe(0);
    queue.remove('a2');
    expect(queue.remove('a2')).toBe(-1);
    queue.add('a5', 'a');
    expect(takeAll(queue)).toBe('a3 b1 a4 b2 b3 a5');
  });

  it('counts an item that overtakes as a turn of its owner', () => {
    const queue = queueOf('a1', 'a2', 'b1', 'b2');
    queue.take('b2');
    queue.add('b3', 'b');
    expect(takeAll(queue)).toBe('a1 b1 a2 b3');
  });

  it('runs an item that was put back before all others', () => {
    const queue = queueOf('a1', 'b1', 'b2');
    queue.take('a1');
    queue.putBack('a1', 'a');
    expect(takeAll(queue)).toBe('a1 b1 b2');
  });

  it('stays as small as what waits, however many owners come', () => {
    const queue = new FairQueue<string>();
    for (let i = 0; i < 5000; i += 1) {
      queue.add(`item-${i}`, `owner-${i}`);
      takeAll(queue);
    }
    expect(queue.remembered).toBeLessThan(3000);
  });
});
