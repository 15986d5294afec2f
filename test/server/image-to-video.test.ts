import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { JobType, type Reference, ReferenceRole } from '../../src/gen/darkroom/v1/job.js';
import { rebuildModel } from '../conformance/golden-folder.js';
import { metadataOf, outcomeOf, type Serving, serve } from '../support/serving.js';
import { goldens } from '../support/tiny-wan.js';

/** Of one picture, of two that it tells apart, and of one or two of which it looks at the first. */
let oneFrame: Serving;
let twoFrames: Serving;
let oneOrTwo: Serving;
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const serveGolden = async (name: string) =>
    serve({ WAN_PATH: await rebuildModel(goldens(name), join(folder, name)) }, { startsLater: true });
  oneFrame = await serveGolden('wan-i2v-tiny');
  twoFrames = await serveGolden('wan-flf2v-tiny');
  oneOrTwo = await serveGolden('wan-fun-inp-tiny');
  return () => rm(folder, { recursive: true });
});
afterAll(() => Promise.all([oneFrame.stop(), twoFrames.stop(), oneOrTwo.stop()]));

const small = { prompt: 'a red kite over a field', width: 64, height: 64, steps: 2, seed: 5n };
const clip = { ...small, jobType: JobType.JOB_TYPE_VIDEO_FAST, frames: 9 };
const image = { ...small, jobType: JobType.JOB_TYPE_IMAGE_FAST };
const { REFERENCE_ROLE_UNSPECIFIED: SINGLE, REFERENCE_ROLE_START: START, REFERENCE_ROLE_END: END } = ReferenceRole;

async function references(...roles: readonly ReferenceRole[]): Promise<Reference[]> {
  return Promise.all(
    roles.map(async (role) => {
      const background = { r: 60 + 60 * role, g: 90, b: 40 };
      const value = await sharp({ create: { width: 96, height: 64, channels: 3, background } })
        .png()
        .toBuffer();
      return { source: { $case: 'image', value }, type: 0, role, strength: 0.5, denoisingStrength: undefined };
    }),
  );
}

describe('a model that continues a frame', () => {
  it('takes references that come before anybody knows what it is', async () => {
    const early = outcomeOf(oneFrame.client, { ...clip, references: await references(START) });
    const without = outcomeOf(oneFrame.client, clip);
    await oneFrame.engine.start();
    expect(metadataOf(await early)).toMatchObject({ referenceMethod: 'image_conditioning', referenceApplied: true });
    expect((await without).error).toMatchObject({ status: 'FAILED_PRECONDITION', reason: 'REFERENCE_NEEDED' });
  });

  it.each([
    ['single', [SINGLE]],
    ['start', [START]],
  ] as const)('%s: is told of the frame, and the metadata says so', async (mode, roles) => {
    const metadata = metadataOf(await outcomeOf(oneFrame.client, { ...clip, references: await references(...roles) }));
    expect(metadata).toMatchObject({
      referenceMode: mode,
      referenceApplied: true,
      referenceMethod: 'image_conditioning',
      referenceFit: 'cover_center_crop',
      referenceProblem: undefined,
      guidanceScale: 7,
    });
    // The published default of these models: T2V's, and no shaking camera.
    expect(metadata.negativePrompt).toMatch(/^镜头晃动，色调艳丽，/);
  });

  it('both: leaves the last frame out and says so', async () => {
    const both = await outcomeOf(oneFrame.client, { ...clip, references: await references(START, END) });
    expect(metadataOf(both)).toMatchObject({
      referenceMode: 'both',
      referenceApplied: false,
      referenceMethod: 'image_conditioning',
      referenceProblem: 'the end reference was left out: the model takes a start reference alone',
    });
    const start = await outcomeOf(oneFrame.client, { ...clip, references: await references(START) });
    expect(both.files[1]).toEqual(start.files[1]);
  });

  it.each([
    ['a clip of text alone', clip, [], 'give a start reference, or '],
    ['a clip of its last frame alone', clip, [END], 'give a start reference, or '],
    ['a picture of text alone', image, [], 'give a reference, or '],
  ] as const)('refuses %s', async (_, request, roles, remedy) => {
    const { error } = await outcomeOf(oneFrame.client, { ...request, references: await references(...roles) });
    expect([error?.status, error?.reason, error?.message]).toEqual([
      'FAILED_PRECONDITION',
      'REFERENCE_NEEDED',
      `model "wan" makes videos of a first frame; ${remedy}use a text-to-video or a VACE model`,
    ]);
  });

  it('makes a picture of its reference: a clip of that frame', async () => {
    const outcome = await outcomeOf(oneFrame.client, { ...image, references: await references(SINGLE) });
    expect(metadataOf(outcome)).toMatchObject({
      referenceMode: 'single',
      referenceMethod: 'image_conditioning',
      denoisingStrength: undefined,
      frames: 1,
    });
  });
});

describe('a model between two frames', () => {
  it('is told of both, in any order, and does nothing with one of them', async () => {
    await twoFrames.engine.start();
    for (const roles of [
      [START, END],
      [END, START],
    ]) {
      const outcome = await outcomeOf(twoFrames.client, { ...clip, references: await references(...roles) });
      expect(metadataOf(outcome)).toMatchObject({ referenceMode: 'both', referenceApplied: true });
    }
    const { error } = await outcomeOf(twoFrames.client, { ...clip, references: await references(START) });
    expect(error?.message).toBe(
      'model "wan" makes videos of a first and a last frame; give a start and an end reference, or use a text-to-video or a VACE model',
    );
    const picture = await outcomeOf(twoFrames.client, { ...image, references: await references(SINGLE) });
    expect(picture.error?.message).toBe(
      'model "wan" makes videos of a first and a last frame; use a text-to-video or a VACE model',
    );
  });
});

describe('a Fun-InP model', () => {
  it('makes a clip of its first frame, with or without its last one, and none of the last one alone', async () => {
    await oneOrTwo.engine.start();
    const made = async (...roles: ReferenceRole[]) =>
      outcomeOf(oneOrTwo.client, { ...clip, references: await references(...roles) });
    const [start, both, end] = [await made(START), await made(START, END), await made(END)];
    for (const outcome of [start, both]) {
      expect(metadataOf(outcome)).toMatchObject({
        referenceApplied: true,
        referenceMethod: 'image_conditioning',
        referenceProblem: undefined,
      });
    }
    // The last frame is not left out: the clips differ.
    expect(both.files[0]).not.toEqual(start.files[0]);
    expect([end.error?.reason, end.error?.message]).toEqual([
      'REFERENCE_NEEDED',
      'model "wan" makes videos of a first frame; give a start reference, or use a text-to-video or a VACE model',
    ]);
  });
});
