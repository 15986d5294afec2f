import { expect, it } from 'vitest';
import { ReapWindow } from '../../src/queue-bridge/reap-window.js';

const LEASE_MS = 30_000;
const reaps = (window: ReapWindow, now: number) => window.reaping.from <= now && now <= window.reaping.until;

it('a bridge reaps from its first poll on, and while its polls are answered in time', () => {
  const window = new ReapWindow(LEASE_MS);
  expect(reaps(window, 1_000_000)).toBe(true);
  window.answered(1_000_000);
  window.waits(2000);
  expect(reaps(window, 1_000_000 + 12_000)).toBe(true);
  window.answered(1_000_000 + 12_000);
  expect(reaps(window, 1_000_000 + 12_001)).toBe(true);
});

it('a bridge does not reap with a poll that was on its way during an outage, nor within a lease after it', () => {
  const window = new ReapWindow(LEASE_MS);
  window.answered(1_000_000);
  window.waits(2000);
  const back = 1_000_000 + 12_001;
  expect(reaps(window, back)).toBe(false);
  window.answered(back);
  expect(reaps(window, back + 1)).toBe(false);
  for (let now = back; now < back + LEASE_MS; now += 2000) window.answered(now);
  expect(reaps(window, back + LEASE_MS - 1)).toBe(false);
  expect(reaps(window, back + LEASE_MS)).toBe(true);
});

it('a clock that went forward and back again does not keep a bridge from reaping', () => {
  const window = new ReapWindow(LEASE_MS);
  window.answered(1_000_000);
  window.answered(1_000_000 + 3_600_000);
  for (let now = 1_002_000; now < 1_002_000 + LEASE_MS; now += 2000) window.answered(now);
  expect(reaps(window, 1_002_001 + LEASE_MS)).toBe(true);
});

it('a store that is always slow does not keep a bridge from reaping', () => {
  const window = new ReapWindow(LEASE_MS);
  const reaping: number[] = [];
  for (let now = 1_000_000; now < 1_000_000 + 10 * LEASE_MS; now += 12_000) {
    if (reaps(window, now)) reaping.push(now);
    window.answered(now);
  }
  expect(reaping.length).toBeGreaterThan(10);
});
