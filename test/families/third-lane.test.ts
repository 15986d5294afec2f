import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { expect, it, onTestFinished } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import { createEngines } from '../../src/engine/create-engines.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { contractJobTypes, type JobTypeInfo, jobTypesOf } from '../../src/job-types.js';
import { builtInFamilies } from '../../src/pipelines/families.js';
import type { Families } from '../../src/pipelines/family.js';
import { createServer } from '../../src/server/server.js';
import { bridging } from '../support/bridging.js';
import { silent } from '../support/serving.js';
import { paint } from './paint.js';

const families: Families = [...builtInFamilies, paint];
const entry = new URL('../../dist/test/families/paint-process.js', import.meta.url);

const paintFast: JobTypeInfo = {
  name: 'paint_fast',
  value: JobType.JOB_TYPE_UNSPECIFIED,
  family: 'paint',
  makes: 'images',
  steps: 3,
  guidanceScale: 1,
  isEnhanced: false,
  takesWeights: false,
  expectedSeconds: (images) => 2 * images,
};

it('a lane that the environment names takes jobs of a type that a test adds to a family that a test registers', async () => {
  const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0', DEVICE: 'cpu', PAINT_PATH: '2080c0' }, families);
  const engines = createEngines({ config, log: silent, families, entry });
  const server = await createServer({ config, log: silent, engines, families });
  await Promise.all(engines.map((engine) => engine.start()));
  onTestFinished(async () => {
    await server.close();
    await Promise.all(engines.map((engine) => engine.stop()));
  });

  const variables = { BRIDGE_LANES: 'sdxl,wan,paint', BRIDGE_PAINT_QUEUE: 'colours' };
  const { start, push, ended } = await bridging(`127.0.0.1:${server.port}`, { variables });
  await start({ jobTypes: jobTypesOf([...contractJobTypes.values(), paintFast]) });
  await push(
    { id: 'wall', type: 'paint_fast', prompt: 'a wall', user_id: 'ann', config: { num_images: 3 } },
    'colours',
  );

  const { status, assets, metadata } = await ended('wall');
  expect([status, assets.length]).toEqual(['completed', 3]);
  expect(metadata).toMatchObject({ job_type: 'paint_fast', steps: 3, guidance_scale: 1, expected_time: 6 });
  const { data } = await sharp(await readFile(fileURLToPath(assets[0] ?? '')))
    .raw()
    .toBuffer({ resolveWithObject: true });
  expect([...data.subarray(0, 3)]).toEqual([0x20, 0x80, 0xc0]);
});
