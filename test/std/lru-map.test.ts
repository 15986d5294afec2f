import { describe, expect, it } from 'vitest';
import { LruMap } from '../../src/std/lru-map.js';

describe('LruMap', () => {
  it('evicts the entry used longest ago once it holds more than its capacity', () => {
    const map = new LruMap<string, number>(2);
    map.set('a', 1);
    map.set('b', 2);
    expect(map.get('a')).toBe(1);
    map.set('c', 3);
    expect(map.keys()).toEqual(['a', 'c']);
    expect(map.get('b')).toBeUndefined();
  });

  it('does not count has() as a use', () => {
    const map = new LruMap<string, number>(2);
    map.set('a', 1);
    map.set('b', 2);
    expect(map.has('a')).toBe(true);
    map.set('c', 3);
    expect(map.keys()).toEqual(['b', 'c']);
  });

  it('replaces the value of a key, which is a use', () => {
    const map = new LruMap<string, number>(2);
    map.set('a', 1);
    map.set('b', 2);
    map.set('a', 3);
    expect([map.keys(), map.values(), map.size]).toEqual([['b', 'a'], [2, 3], 2]);
  });

  it('counts costs, and keeps the last entry whatever it costs', () => {
    const map = new LruMap<string, string>(5, ({ length }) => length);
    map.set('a', '12');
    map.set('b', '123');
    expect(map.keys()).toEqual(['a', 'b']);
    map.set('c', '1');
    expect(map.keys()).toEqual(['b', 'c']);
    map.set('d', '1234567');
    expect(map.keys()).toEqual(['d']);
  });

  it('gives up the oldest entry when asked to', () => {
    const map = new LruMap<string, number>(2);
    map.set('a', 1);
    map.set('b', 2);
    expect([map.takeOldest(), map.takeOldest(), map.takeOldest()]).toEqual([1, 2, undefined]);
  });
});
