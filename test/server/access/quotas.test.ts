import { expect, it, onTestFinished, vi } from 'vitest';
import { InferenceError } from '../../../src/errors.js';
import { Quotas } from '../../../src/server/access/quotas.js';

it('asks for a minute at most, also after the clock was set back', () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  const quotas = new Quotas();
  const caller = { name: 'anna', scopes: ['generate'], limits: { jobsPerMinute: 1 } } as const;
  quotas.start(caller, 0);
  vi.setSystemTime(Date.now() - 3_600_000);
  let refusal: unknown;
  try {
    quotas.start(caller, 0);
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toMatchObject({ reason: 'RATE_LIMITED' });
  const { retryAfterMs = 0 } = InferenceError.from(refusal);
  expect(retryAfterMs).toBeGreaterThan(0);
  expect(retryAfterMs).toBeLessThanOrEqual(60_000);
});
