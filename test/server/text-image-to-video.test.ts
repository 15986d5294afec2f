import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { estimate } from '../../src/client/client.js';
import { JobType, type Reference, ReferenceRole } from '../../src/gen/darkroom/v1/job.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { metadataOf, modelsOf, outcomeOf, type Serving, serve } from '../support/serving.js';

let serving: Serving;
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const variables = { WAN_PATH: await writeSyntheticWan(join(folder, 'wan'), 'wan-ti2v-tiny') };
  serving = await serve(variables, { startsLater: true });
  return () => rm(folder, { recursive: true });
});
afterAll(() => serving.stop());

const small = { prompt: 'a red kite over a field', width: 64, height: 64, steps: 2, seed: 5n };
const clip = { ...small, jobType: JobType.JOB_TYPE_VIDEO_FAST, frames: 5 };
const { REFERENCE_ROLE_UNSPECIFIED: SINGLE, REFERENCE_ROLE_START: START, REFERENCE_ROLE_END: END } = ReferenceRole;

async function references(...roles: readonly ReferenceRole[]): Promise<Reference[]> {
  const background = { r: 200, g: 90, b: 40 };
  const value = await sharp({ create: { width: 96, height: 64, channels: 3, background } })
    .png()
    .toBuffer();
  return roles.map((role) => ({
    source: { $case: 'image', value },
    type: 0,
    role,
    strength: 0.5,
    denoisingStrength: undefined,
  }));
}

describe('WAN 2.2 5B', () => {
  it('has the size, length and rate that it was trained on, also for what came before it was read', async () => {
    const native = { jobType: JobType.JOB_TYPE_VIDEO_FAST, prompt: small.prompt };
    const early = outcomeOf(serving.client, { ...clip, width: 80, height: 112 });
    const fits = outcomeOf(serving.client, clip);
    const cost = estimate(serving.client, native);
    await serving.engine.start();
    expect(metadataOf(await fits).fps).toBe(24);
    expect(await cost).toMatchObject({ width: 1280, height: 704, frames: 121 });
    const { error } = await early;
    expect(error).toMatchObject({ reason: 'INVALID_REQUEST' });
    expect(error?.message).toBe(
      'Invalid parameters: width 80 must be a multiple of 32; use 64 or 96; height 112 must be a multiple of 32; use 96 or 128',
    );
  });

  it('says what it was trained on', async () => {
    const [model] = await modelsOf(serving);
    expect(model).toMatchObject({ sizeMultiple: 32, nativeFrames: 121, nativeFps: 24 });
    expect(model).toMatchObject({ referenceRoles: [START], neededReferenceRoles: [] });
    const { error } = await outcomeOf(serving.client, { ...clip, width: 80 });
    expect(error?.message).toBe('Invalid parameters: width 80 must be a multiple of 32; use 64 or 96');
  });

  it('begins a video with its first frame, whatever the strength, and makes another without one', async () => {
    const [start, single, text] = [
      await outcomeOf(serving.client, { ...clip, references: await references(START) }),
      await outcomeOf(serving.client, { ...clip, references: await references(SINGLE), guidanceScale: 7 }),
      await outcomeOf(serving.client, clip),
    ];
    expect(metadataOf(start)).toMatchObject({
      referenceMethod: 'clean_frames',
      referenceApplied: true,
      guidanceScale: 7,
      frames: 5,
      fps: 24,
    });
    expect(single.files).toEqual(start.files);
    expect(metadataOf(text)).toMatchObject({ referenceMode: 'none', fps: 24 });
    expect(text.files[0]).not.toEqual(start.files[0]);
  });

  it('is named to a request that leaves the model to a server without SDXL', async () => {
    const { error } = await outcomeOf(serving.client, { prompt: 'a house' });
    expect([error?.reason, error?.message]).toEqual([
      'MODEL_NOT_FOUND',
      'a request without model and job_type is for SDXL, which is not served; name a job_type, or one of the models wan',
    ]);
  });

  it('leaves a last frame out and says so', async () => {
    const both = await outcomeOf(serving.client, { ...clip, references: await references(START, END) });
    expect(metadataOf(both)).toMatchObject({
      referenceApplied: false,
      referenceProblem: 'the end reference was left out: the model takes a start reference alone',
    });
  });

  it('starts an image from its reference', async () => {
    const image = { ...small, jobType: JobType.JOB_TYPE_IMAGE_FAST, references: await references(SINGLE) };
    expect(metadataOf(await outcomeOf(serving.client, image))).toMatchObject({ referenceMethod: 'img2img', frames: 1 });
  });
});
