import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type DarkroomClient, serverStatus } from '../../src/client/client.js';
import { readConfig } from '../../src/config/server-config.js';
import { createEngines } from '../../src/engine/create-engines.js';
import { Phase } from '../../src/gen/darkroom/v1/event.js';
import { builtInFamilies } from '../../src/pipelines/families.js';
import type { Families } from '../../src/pipelines/family.js';
import { createServer } from '../../src/server/server.js';
import { completed, outcomeOf, silent } from '../support/serving.js';
import { paint } from './paint.js';

const families: Families = [...builtInFamilies, paint];
const entry = new URL('../../dist/test/families/paint-process.js', import.meta.url);

/** A server that has the family, too. @param variables over the test's own */
async function startPaint(
  variables: NodeJS.ProcessEnv = {},
): Promise<{ client: DarkroomClient; stop(): Promise<void> }> {
  const own = { DARKROOM_LISTEN: '127.0.0.1:0', DEVICE: 'cpu', PAINT_PATH: '2080c0' };
  const config = readConfig({}, { ...own, ...variables }, families);
  const engines = createEngines({ config, log: silent, families, entry });
  const server = await createServer({ config, log: silent, engines, families });
  await Promise.all(engines.map((engine) => engine.start()));
  const client = connect(`127.0.0.1:${server.port}`);
  return {
    client,
    async stop() {
      client.close();
      await server.close();
      await Promise.all(engines.map((engine) => engine.stop()));
    },
  };
}

/** In which three images are decoded and their files arrive. */
async function orderOfThree(client: DarkroomClient): Promise<readonly string[]> {
  const { events } = await outcomeOf(client, { model: 'paint', prompt: 'a wall', numImages: 3 });
  return events.flatMap(({ event }) => {
    if (event?.$case === 'progress' && event.value.phase === Phase.PHASE_DECODE) return [`decode ${event.value.step}`];
    return event?.$case === 'assetChunk' && event.value.asset ? [`file ${event.value.index}`] : [];
  });
}

let serving: Awaited<ReturnType<typeof startPaint>>;
let client: DarkroomClient;

beforeAll(async () => {
  serving = await startPaint();
  client = serving.client;
});

afterAll(() => serving.stop());

describe('a family that a test registers', () => {
  it('generates images through the server and an engine process', async () => {
    const outcome = await outcomeOf(client, { model: 'paint', prompt: 'a wall', numImages: 3, seed: 5n });
    const { metadata, assets } = completed(outcome);
    expect(metadata).toMatchObject({ width: 32, height: 16, steps: 2, scheduler: 'brush', seeds: [5n, 6n, 7n] });
    expect(assets).toHaveLength(3);
    const { data, info } = await sharp(outcome.files[0]).raw().toBuffer({ resolveWithObject: true });
    expect([info.width, info.height, [...data.subarray(0, 3)]]).toEqual([32, 16, [0x20, 0x80, 0xc0]]);
  });

  it('goes on to its next image while the file of one is written', async () => {
    // Two are never written at a time.
    const order = ['decode 1', 'decode 2', 'file 0', 'decode 3', 'file 1', 'file 2'];
    expect(await orderOfThree(client)).toEqual(order);
  });

  it('sends a file before its next image where runs block the process', async () => {
    const blocked = await startPaint({ RUNTIME: 'binding' });
    const order = await orderOfThree(blocked.client).finally(() => blocked.stop());
    expect(order).toEqual(['decode 1', 'file 0', 'decode 2', 'file 1', 'decode 3', 'file 2']);
  });

  it('is listed, and its fields are checked by what it says of itself', async () => {
    expect((await serverStatus(client, 5000)).models).toMatchObject([
      { name: 'paint', family: 'paint', nativeWidth: 32 },
    ]);
    const { error } = await outcomeOf(client, {
      model: 'paint',
      prompt: 'a wall',
      width: 34,
      scheduler: 'euler',
      weights: '(wall:1.2)',
      frames: 5,
      reuseThreshold: 0.1,
    });
    expect(error?.violations.map(({ description }) => description)).toEqual([
      'weights are for SDXL; leave them out for Paint',
      'width 34 must be a multiple of 4; use 32 or 36',
      'reuse_threshold is for WAN; leave it out for Paint',
      'scheduler "euler" must be one of brush',
      'frames 5 are for videos; leave them out for an image',
    ]);
  });
});
