import { describe, expect, it } from 'vitest';
import { DeviceTurns, type DeviceTurnsOptions, type TurnSeat } from '../../src/engine/device-turns.js';

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs of an engine, each of so many ms; notes them in a log when they begin. */
async function work(seat: TurnSeat, log: string[], name: string, ms: number, runs: number, makesVideo = false) {
  for (let run = 0; run < runs; run += 1) {
    await new Promise<void>((resolve) => seat.request(resolve, makesVideo));
    log.push(name);
    await wait(ms);
    seat.end();
  }
  seat.leave();
}

function device(options: DeviceTurnsOptions): readonly [TurnSeat, TurnSeat] {
  const turns = new DeviceTurns(options);
  return [turns.join(), turns.join()];
}

describe('turns on a device', () => {
  it('are free for an engine that is alone', () => {
    const [only] = device({ policy: 'fair' });
    let turns = 0;
    for (let run = 0; run < 3; run += 1) {
      only.request(() => {
        turns += 1;
      }, true);
      only.end();
    }
    expect(turns).toBe(3);
  });

  it('go to one engine at a time, and in between to the one that used the device least', async () => {
    const [clip, image] = device({ policy: 'fair' });
    const log: string[] = [];
    const clips = work(clip, log, 'clip', 60, 4, true);
    await wait(10);
    // Ten short runs take as long as one and a half of the long ones.
    await Promise.all([clips, work(image, log, 'image', 9, 10)]);
    expect(log.slice(0, 6)).toEqual(['clip', 'image', 'image', 'image', 'image', 'image']);
    expect(log.filter((name) => name === 'clip')).toHaveLength(4);
    // The clip is not kept off either.
    expect(log.lastIndexOf('image')).toBeLessThan(log.lastIndexOf('clip'));
  });

  it('do not count what an engine used before, while it had the device for itself', async () => {
    const [clip, image] = device({ policy: 'fair' });
    const log: string[] = [];
    await work(image, log, 'earlier', 100, 1);
    const clips = work(clip, log, 'clip', 20, 4, true);
    await wait(5);
    await Promise.all([clips, work(image, log, 'image', 5, 2)]);
    expect(log.slice(0, 4)).toEqual(['earlier', 'clip', 'image', 'image']);
  });

  it('go to all runs of an image before the next one of a video, with images first', async () => {
    const [clip, image] = device({ policy: 'images-first' });
    const log: string[] = [];
    const clips = work(clip, log, 'clip', 20, 3, true);
    await wait(5);
    await Promise.all([clips, work(image, log, 'image', 30, 5)]);
    expect(log).toEqual(['clip', ...new Array<string>(5).fill('image'), 'clip', 'clip']);
  });

  it('are lost by an engine that dies, or holds one for too long', async () => {
    const [dead, other] = device({ policy: 'fair', graceMs: 0, holdLimitMs: 30 });
    const log: string[] = [];
    dead.request(() => log.push('dead'), false);
    other.request(() => log.push('other'), false);
    expect(log).toEqual(['dead']);
    dead.leave();
    expect(log).toEqual(['dead', 'other']);
    other.end();
    dead.request(() => log.push('hung'), false);
    await new Promise<void>((resolve) => other.request(resolve, false));
    // Its late end takes nothing from the one that has the turn.
    dead.end();
    expect(log).toEqual(['dead', 'other', 'hung']);
  });

  it('are not kept for an engine that gave up waiting', () => {
    const [first, second] = device({ policy: 'fair' });
    const log: string[] = [];
    first.request(() => log.push('first'), false);
    second.request(() => log.push('second'), false);
    second.end();
    first.end();
    expect(log).toEqual(['first']);
  });
});
