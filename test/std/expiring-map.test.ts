import { afterEach, describe, expect, it, vi } from 'vitest';
import { ExpiringMap } from '../../src/std/expiring-map.js';

describe('ExpiringMap', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('forgets an entry after its time, and counts anew when it is set again', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const map = new ExpiringMap<string, number>(10, 1000);
    map.set('a', 1);
    vi.advanceTimersByTime(600);
    map.set('b', 2);
    expect([map.get('a'), map.get('b')]).toEqual([1, 2]);
    vi.advanceTimersByTime(400);
    expect([map.get('a'), map.get('b')]).toEqual([undefined, 2]);
    map.set('b', 3);
    vi.advanceTimersByTime(999);
    expect([map.has('a'), map.get('b')]).toEqual([false, 3]);
  });

  it('does not follow a clock that is set', () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const map = new ExpiringMap<string, number>(10, 60_000);
    map.set('a', 1);
    vi.setSystemTime(Date.now() + 3_600_000);
    expect(map.get('a')).toBe(1);
  });

  it('keeps the entries used last, up to its capacity', () => {
    const map = new ExpiringMap<string, number>(2, 60_000);
    map.set('a', 1);
    map.set('b', 2);
    map.get('a');
    map.set('c', 3);
    expect(['a', 'b', 'c'].map((key) => map.has(key))).toEqual([true, false, true]);
  });
});
