import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { estimate } from '../../src/client/client.js';
import { JobType, type Reference, ReferenceRole } from '../../src/gen/darkroom/v1/job.js';
import { completed, metadataOf, outcomeOf, type Serving, serve } from '../support/serving.js';
import { sharedTinyWan } from '../support/tiny-wan.js';

let serving: Serving;
beforeAll(async () => {
  const { path, remove } = await sharedTinyWan('BF16', 'wan-vace-tiny');
  serving = await serve({ WAN_PATH: path });
  return remove;
});
afterAll(() => serving.stop());

const small = { prompt: 'a red kite over a field', width: 64, height: 64, steps: 2, seed: 5n };
const clip = { ...small, jobType: JobType.JOB_TYPE_VIDEO_FAST, frames: 9 };
const run = (request: object) => outcomeOf(serving.client, request);
const { REFERENCE_ROLE_UNSPECIFIED: SINGLE, REFERENCE_ROLE_START: START, REFERENCE_ROLE_END: END } = ReferenceRole;

async function referenceOf(role: ReferenceRole, strength?: number): Promise<Reference> {
  const background = { r: 60 + 60 * role, g: 90, b: 40 };
  const value = await sharp({ create: { width: 96, height: 64, channels: 3, background } })
    .png()
    .toBuffer();
  return { source: { $case: 'image', value }, type: 0, role, strength, denoisingStrength: undefined };
}

describe('references of a clip on VACE', () => {
  it.each([
    ['single', [SINGLE]],
    ['start', [START]],
    ['end', [END]],
    ['both', [START, END]],
    ['both', [END, START]],
  ] as const)('%s: condition it as the model was trained for, and the metadata says so', async (mode, roles) => {
    const references = await Promise.all(roles.map((role) => referenceOf(role, 0.5)));
    const outcome = await run({ ...clip, references });
    expect(completed(outcome).metadata).toMatchObject({
      referenceMode: mode,
      referenceApplied: true,
      referenceMethod: 'vace',
      referenceFit: 'cover_center_crop',
      referenceProblem: undefined,
      referenceStrength: 0.5,
      denoisingStrength: undefined,
      guidanceScale: 7,
      frames: 9,
    });
    expect(outcome.files[0]).not.toEqual((await run({ ...clip, guidanceScale: 7 })).files[0]);
  });

  it('condition it by their strength, whatever the guidance scale', async () => {
    const made = async (strength: number) =>
      (await run({ ...clip, guidanceScale: 5, references: [await referenceOf(START, strength)] })).files[0];
    expect(await made(0.3)).not.toEqual(await made(0.9));
    expect(await made(0.9)).toEqual(await made(0.9));
  });

  it('are none where there are none', async () => {
    expect(metadataOf(await run(clip))).toMatchObject({
      referenceMode: 'none',
      referenceApplied: undefined,
      referenceMethod: undefined,
      referenceFit: undefined,
      guidanceScale: 6.5,
    });
  });
});

describe('a reference of a picture on VACE', () => {
  const image = { ...small, jobType: JobType.JOB_TYPE_IMAGE_FAST };

  it('is what all steps look at, not what they start from', async () => {
    const request = { ...image, references: [await referenceOf(SINGLE, 0.5)] };
    const outcome = await run(request);
    expect(completed(outcome).metadata).toMatchObject({
      referenceMode: 'single',
      referenceApplied: true,
      referenceMethod: 'vace',
      referenceStrength: 0.5,
      denoisingStrength: undefined,
      forwards: 4,
    });
    expect(outcome.files[0]).not.toEqual((await run({ ...image, guidanceScale: 7 })).files[0]);
    expect((await estimate(serving.client, request)).denoisingSteps).toBe(2);
  });
});
