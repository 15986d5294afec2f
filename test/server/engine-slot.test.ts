import { describe, expect, it } from 'vitest';
import { EngineWait } from '../../src/server/jobs/engine-slot.js';

function secondsUntilFree(running: readonly number[], jobs: readonly (number | undefined)[]): number | undefined {
  const wait = new EngineWait(running.map((seconds) => [seconds]));
  for (const seconds of jobs) wait.add(seconds);
  return wait.seconds;
}

describe('the wait for one of several engines', () => {
  it('is the sum of what one engine has to do', () => {
    expect(secondsUntilFree([3], [5, 7])).toBe(15);
  });

  it('counts each job to the engine that is free first', () => {
    // The free engine takes the first job until 5, the other one is free at 3 and takes the second until 10.
    expect(secondsUntilFree([3, 0], [5, 7])).toBe(5);
  });

  it('is nothing where an engine is free', () => {
    expect(secondsUntilFree([30, 0], [])).toBe(0);
  });

  it('is unknown as soon as a job before it is', () => {
    expect(secondsUntilFree([3, 4], [undefined])).toBeUndefined();
  });

  it('is that of one engine while none is known to come back', () => {
    expect(secondsUntilFree([], [5, 7])).toBe(12);
  });
});
