import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { estimate } from '../../src/client/client.js';
import {
  type ControlVideo,
  JobType,
  OutputMetadata,
  type Reference,
  ReferenceRole,
} from '../../src/gen/darkroom/v1/job.js';
import { VideoWriter } from '../../src/media/video-writer.js';
import { Expected, rebuildModel } from '../conformance/golden-folder.js';
import { fetcherOf, httpsServer } from '../support/https-server.js';
import { metadataOf, modelsOf, outcomeOf, type Serving, serve } from '../support/serving.js';
import { goldens } from '../support/tiny-wan.js';

let folder: string;
let vace: Serving;
let funControl: Serving;
let withReference: Serving;
let textToVideo: Serving;
/** Nine frames of 48x32, lossless. */
let golden: Buffer;
/** Where the fetcher of the server may go. */
let port = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const serveGolden = async (name: string) =>
    serve({ WAN_PATH: await rebuildModel(goldens(name), join(folder, name)) }, { startsLater: true });
  const path = await rebuildModel(goldens('wan-vace-tiny'), join(folder, 'wan-vace-tiny'));
  const fetcher = fetcherOf(() => port);
  vace = await serve({ WAN_PATH: path }, { startsLater: true, fetcher });
  funControl = await serveGolden('wan-fun-control-tiny');
  withReference = await serveGolden('wan-fun-control-ref-tiny');
  textToVideo = await serveGolden('wan-tiny');
  golden = Buffer.from((await Expected.read(join(goldens('wan-vace-tiny'), 'expected.safetensors'))).get('control'));
  return () => rm(folder, { recursive: true });
});
afterAll(() => Promise.all([vace, funControl, withReference, textToVideo].map((serving) => serving.stop())));

const { OUTPUT_METADATA_NONE } = OutputMetadata;
const small = { prompt: 'a red kite over a field', width: 64, height: 64, steps: 2, seed: 5n };
const clip = { ...small, jobType: JobType.JOB_TYPE_VIDEO_FAST, frames: 9, outputMetadata: OUTPUT_METADATA_NONE };
const control = (value: Buffer, scale?: number): ControlVideo => ({ source: { $case: 'video', value }, scale });

async function reference(role: ReferenceRole): Promise<Reference> {
  const background = { r: 60 + 60 * role, g: 90, b: 40 };
  const value = await sharp({ create: { width: 96, height: 64, channels: 3, background } })
    .png()
    .toBuffer();
  return { source: { $case: 'image', value }, type: 0, role, strength: undefined, denoisingStrength: undefined };
}

/** An MP4 of so many frames, half white and half black. */
async function halves(frames: number): Promise<Buffer> {
  const writer = await VideoWriter.start('ffmpeg', { width: 48, height: 32, fps: 16, format: 'mp4' });
  const rgb = Uint8Array.from({ length: 48 * 32 * 3 }, (_, i) => (Math.floor(i / 3) % 48 < 24 ? 255 : 0));
  for (let i = 0; i < frames; i += 1) await writer.write(rgb);
  return Buffer.from((await writer.finish()).bytes);
}

describe('a VACE model', () => {
  it('takes a control video that comes before anybody knows what it is, and reports how it was used', async () => {
    const early = outcomeOf(vace.client, { ...clip, controlVideo: control(golden) });
    await vace.engine.start();
    const followed = await early;
    expect(metadataOf(followed)).toMatchObject({
      controlVideo: { frames: 9, scale: undefined },
      referenceMode: 'none',
      guidanceScale: 6.5,
    });
    const free = await outcomeOf(vace.client, clip);
    expect(metadataOf(free).controlVideo).toBeUndefined();
    expect(followed.files[0]).not.toEqual(free.files[0]);
    const weaker = await outcomeOf(vace.client, { ...clip, controlVideo: control(golden, 0.25) });
    expect(metadataOf(weaker).controlVideo).toEqual({ frames: 9, scale: 0.25 });
    expect(weaker.files[0]).not.toEqual(followed.files[0]);
  });

  it('follows it between a first and a last frame', async () => {
    const references = [
      await reference(ReferenceRole.REFERENCE_ROLE_START),
      await reference(ReferenceRole.REFERENCE_ROLE_END),
    ];
    const both = await outcomeOf(vace.client, { ...clip, references, controlVideo: control(golden) });
    expect(metadataOf(both)).toMatchObject({
      referenceMode: 'both',
      referenceApplied: true,
      controlVideo: { frames: 9 },
    });
    const known = await outcomeOf(vace.client, { ...clip, references });
    expect(both.files[0]).not.toEqual(known.files[0]);
  });

  it('fetches it from a URL, and asks for a video', async () => {
    const host = await httpsServer((_, response) => response.end(golden));
    ({ port } = host);
    const source = { $case: 'url', value: `https://references.test:${port}/pose.mkv` } as const;
    const fetched = await outcomeOf(vace.client, { ...clip, controlVideo: { source, scale: undefined } });
    expect(host.requests[0]?.headers.accept).toBe('video/mp4, video/webm, image/gif');
    const sent = await outcomeOf(vace.client, { ...clip, controlVideo: control(golden) });
    expect(fetched.files[0]).toEqual(sent.files[0]);
  });

  it('follows it beside a look, which is none of its frames', async () => {
    const references = [await reference(ReferenceRole.REFERENCE_ROLE_LOOK)];
    const looking = await outcomeOf(vace.client, { ...clip, references, controlVideo: control(golden) });
    expect(metadataOf(looking)).toMatchObject({ referenceMode: 'look', referenceApplied: true, frames: 9 });
    const start = await reference(ReferenceRole.REFERENCE_ROLE_START);
    const both = await outcomeOf(vace.client, {
      ...clip,
      references: [...references, start],
      controlVideo: control(golden),
    });
    expect(metadataOf(both)).toMatchObject({ referenceMode: 'start', referenceApplied: true });
    expect(both.files[0]).not.toEqual(looking.files[0]);
    const twice = await outcomeOf(vace.client, { ...clip, references: [...references, ...references] });
    expect(twice.error?.message).toMatch(/references\[1\]\.role must be another one than those before it$/);
  });

  it('reports how many frames a shorter one covers', async () => {
    const outcome = await outcomeOf(vace.client, { ...clip, controlVideo: control(await halves(4)) });
    expect(metadataOf(outcome).controlVideo?.frames).toBe(4);
  });

  it('lists and estimates the field', async () => {
    const [model] = await modelsOf(vace);
    expect(model?.takes).toContain('control_video');
    const cost = await estimate(vace.client, { ...clip, controlVideo: control(golden) });
    expect(cost.frames).toBe(9);
  });
});

describe('a Fun-Control model', () => {
  beforeAll(() => funControl.engine.start());

  it('follows a control video, with or without a first frame, and leaves a last one out', async () => {
    const made = async (...roles: ReferenceRole[]) =>
      outcomeOf(funControl.client, {
        ...clip,
        controlVideo: control(golden),
        references: await Promise.all(roles.map(reference)),
      });
    const alone = await made();
    expect(metadataOf(alone)).toMatchObject({ controlVideo: { frames: 9 }, referenceMode: 'none' });
    // Of text-to-video: its camera may shake.
    expect(metadataOf(alone).negativePrompt).toMatch(/^色调艳丽，/);
    const start = await made(ReferenceRole.REFERENCE_ROLE_START);
    expect(metadataOf(start)).toMatchObject({ referenceApplied: true, referenceMethod: 'image_conditioning' });
    expect(start.files[0]).not.toEqual(alone.files[0]);
    const both = await made(ReferenceRole.REFERENCE_ROLE_START, ReferenceRole.REFERENCE_ROLE_END);
    expect(metadataOf(both).referenceProblem).toMatch(/^the end reference was left out: /);
    expect(both.files[0]).toEqual(start.files[0]);
    const text = await outcomeOf(funControl.client, clip);
    expect(text.error).toBeUndefined();
    expect(text.files[0]).not.toEqual(alone.files[0]);
  });

  it('leaves a look out; V1.1 takes one, with a first frame and without', async () => {
    const references = [await reference(ReferenceRole.REFERENCE_ROLE_LOOK)];
    const request = { ...clip, controlVideo: control(golden) };
    const left = await outcomeOf(funControl.client, { ...request, references });
    expect(metadataOf(left).referenceProblem).toBe(
      'the look reference was left out: the model takes a start reference alone',
    );
    await withReference.engine.start();
    const made = async (more: object) => outcomeOf(withReference.client, { ...request, ...more });
    const [free, looking] = [await made({}), await made({ references })];
    const both = await made({ references: [await reference(ReferenceRole.REFERENCE_ROLE_START), ...references] });
    for (const outcome of [looking, both]) expect(metadataOf(outcome).referenceApplied).toBe(true);
    expect(new Set([free, looking, both].map(({ files }) => files[0]?.toString('base64'))).size).toBe(3);
    const image = { ...small, jobType: JobType.JOB_TYPE_IMAGE_FAST };
    const single = { ...(await reference(ReferenceRole.REFERENCE_ROLE_UNSPECIFIED)) };
    expect(metadataOf(await outcomeOf(withReference.client, { ...image, references: [single] }))).toMatchObject({
      referenceApplied: true,
      referenceMethod: 'image_conditioning',
      frames: 1,
    });
  });

  it('takes no scale', async () => {
    const { error } = await outcomeOf(funControl.client, { ...clip, controlVideo: control(golden, 0.5) });
    expect([error?.reason, error?.message]).toEqual([
      'INVALID_REQUEST',
      'control_video.scale is for VACE models; leave it out for model "wan"',
    ]);
  });
});

describe('a control video that cannot be used', () => {
  beforeAll(() => Promise.all([vace, textToVideo].map(({ engine }) => engine.start())));

  it('is rejected by a text-to-video model', async () => {
    const { error } = await outcomeOf(textToVideo.client, { ...clip, controlVideo: control(golden) });
    expect([error?.status, error?.reason, error?.message]).toEqual([
      'FAILED_PRECONDITION',
      'MODEL_UNSUPPORTED',
      'model "wan" takes no control_video; leave it out, or use a VACE or a Fun-Control model',
    ]);
  });

  it.each([
    [
      'for an image',
      { jobType: JobType.JOB_TYPE_IMAGE_FAST, frames: 0, controlVideo: control(Buffer.of(1)) },
      'control_video is for videos; leave it out for an image',
    ],
    [
      'with a scale above 2',
      { controlVideo: control(Buffer.of(1), 2.1) },
      'control_video.scale 2.1 must be >= 0 and <= 2',
    ],
    [
      'without a source',
      { controlVideo: { source: undefined, scale: undefined } },
      'control_video must have a video or a url',
    ],
    [
      'of no bytes',
      { controlVideo: control(Buffer.alloc(0)) },
      'control_video.video of 0 bytes must be >= 1 and <= 20971520; send a smaller file or raise REFERENCE_MAX_BYTES',
    ],
    [
      'of too many bytes',
      { controlVideo: control(Buffer.alloc(20_971_521)) },
      'control_video.video of 20971521 bytes must be >= 1 and <= 20971520; send a smaller file or raise REFERENCE_MAX_BYTES',
    ],
  ] as const)('%s', async (_, request, message) => {
    const { error } = await outcomeOf(vace.client, { ...clip, ...request });
    expect([error?.reason, error?.message]).toEqual(['INVALID_REQUEST', `Invalid parameters: ${message}`]);
  });

  it('is rejected in one sentence while the job waits, and its engine makes the next one', async () => {
    const cut = (await halves(9)).subarray(0, 1200);
    const { error } = await outcomeOf(vace.client, { ...clip, controlVideo: control(Buffer.from(cut)) });
    expect(error?.status).toBe('INVALID_ARGUMENT');
    expect(error?.message).toMatch(/^the control video is damaged or cut short \([^/]*\); send the whole file$/);
    expect((await outcomeOf(vace.client, clip)).error).toBeUndefined();
    expect(vace.engine.restarts).toBe(0);
  });
});
