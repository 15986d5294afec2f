import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { estimate } from '../../src/client/client.js';
import {
  AssetRole,
  JobType,
  OutputFormat,
  OutputMetadata,
  type Reference,
  ReferenceRole,
} from '../../src/gen/darkroom/v1/job.js';
import { readParameters, xmpProperty } from '../support/read-metadata.js';
import { completed, kinds, type Outcome, outcomeOf, type Serving, serve, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

let serving: Serving;
beforeAll(async () => {
  serving = await serve({ WAN_PATH: inject('tinyWan') });
});
afterAll(() => serving.stop());

const small = { prompt: 'a red kite over a field', width: 64, height: 64, steps: 3, seed: 5n };
const clip = { ...small, jobType: JobType.JOB_TYPE_VIDEO_FAST, frames: 9 };
const run = (request: object) => outcomeOf(serving.client, request);

async function probe(file: Buffer | undefined): Promise<Record<string, string>> {
  const path = join(await tempFolder(), 'clip.mp4');
  await writeFile(path, file ?? Buffer.alloc(0));
  const { stdout } = await promisify(execFile)('ffprobe', [
    '-v',
    'error',
    '-count_frames',
    '-show_streams',
    '-of',
    'json',
    path,
  ]);
  return JSON.parse(stdout).streams[0];
}

const picture = (red: number) =>
  sharp({ create: { width: 96, height: 64, channels: 3, background: { r: red, g: 90, b: 40 } } })
    .png()
    .toBuffer();
const reference = (value: Buffer, role: ReferenceRole, strength?: number): Reference => ({
  source: { $case: 'image', value },
  type: 0,
  role,
  strength,
  denoisingStrength: undefined,
});
const { REFERENCE_ROLE_UNSPECIFIED: SINGLE, REFERENCE_ROLE_START: START, REFERENCE_ROLE_END: END } = ReferenceRole;

describe('a video job', () => {
  it('gives an MP4, a poster and a thumbnail, and says what was done', async () => {
    const outcome = await run(clip);
    const { metadata, assets } = completed(outcome);
    expect(assets.map(({ role, contentType, width }) => [role, contentType, width])).toEqual([
      [AssetRole.ASSET_ROLE_RESULT, 'video/mp4', 64],
      [AssetRole.ASSET_ROLE_POSTER, 'image/jpeg', 64],
      [AssetRole.ASSET_ROLE_THUMBNAIL, 'image/jpeg', 64],
    ]);
    expect(await probe(outcome.files[0])).toMatchObject({
      codec_name: 'h264',
      pix_fmt: 'yuv420p',
      r_frame_rate: '16/1',
      nb_read_frames: '9',
    });
    expect(outcome.files[0]?.indexOf('moov')).toBeLessThan(outcome.files[0]?.indexOf('mdat') ?? 0);
    expect(metadata).toMatchObject({
      frames: 9,
      fps: 16,
      steps: 3,
      guidanceScale: 6.5,
      scheduler: 'flow_unipc',
      referenceMode: 'none',
      droppedTokens: 0,
      model: 'wan',
    });
    expect(metadata.negativePrompt).toContain('色调艳丽');
    expect(metadata.promptTokens).toBeGreaterThan(4);
    const fractions = outcome.events.flatMap(({ event }) =>
      event?.$case === 'progress' ? [event.value.fraction] : [],
    );
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions.at(-1)).toBe(1);
  });

  it('takes 4n + 1 frames of those asked for, and other sizes and steps', async () => {
    const { metadata } = completed(await run({ ...clip, frames: 7, width: 80, height: 64, guidanceScale: 1 }));
    expect([metadata.frames, metadata.width, metadata.height, metadata.guidanceScale]).toEqual([5, 80, 64, 1]);
  });

  it('counts the runs of the denoiser, and tells what saved some of them', async () => {
    const longer = { ...clip, steps: 10, frames: 5 };
    const plain = completed(await run(longer)).metadata;
    expect([plain.forwards, plain.guidanceInterval, plain.reuseThreshold]).toEqual([20, undefined, undefined]);
    const inside = completed(await run({ ...longer, guidanceInterval: { end: 0.6 } })).metadata;
    expect([inside.forwards, inside.guidanceInterval]).toEqual([16, { start: 0, end: 0.6 }]);
    const outcome = await run({ ...longer, guidanceInterval: { end: 0.6 }, reuseThreshold: 1 });
    const { metadata } = completed(outcome);
    expect(metadata.reuseThreshold).toBe(1);
    // The first step on both texts, the last one on the prompt, and not all of what is between them.
    expect(metadata.forwards).toBeGreaterThanOrEqual(3);
    expect(metadata.forwards).toBeLessThan(16);
    expect(outcome.files[0]?.toString('latin1')).toContain('Guidance interval: 0-0.6, Reuse threshold: 1');
  });

  it('guides by skipped blocks in a range, and tells so', async () => {
    const skipLayerGuidance = { layers: [1], start: 0.5, end: undefined, scale: 2 };
    const dynamicThresholding = { mimicScale: 3, percentile: undefined };
    const outcome = await run({ ...clip, steps: 4, frames: 5, skipLayerGuidance, dynamicThresholding });
    const { metadata } = completed(outcome);
    expect([metadata.forwards, metadata.skipLayerGuidance]).toEqual([10, { ...skipLayerGuidance, end: 1 }]);
    expect(metadata.dynamicThresholding).toEqual({ mimicScale: 3, percentile: 1 });
    const said = outcome.files[0]?.toString('latin1');
    expect(said).toContain('Dynamic thresholding enabled: True, Mimic scale: 3, Separate Feature Channels: False');
    expect(said).toContain(
      'Threshold percentile: 100, Skip layers: 1, Skip layers interval: 0.5-1, Skip layers scale: 2',
    );
    const beyond = await run({ ...clip, skipLayerGuidance: { ...skipLayerGuidance, layers: [2] } });
    expect(beyond.error?.violations.map(({ description }) => description)).toEqual([
      'skip_layer_guidance.layers 2 must be <= 1: the model has 2 blocks, from 0',
    ]);
  });

  it('gives an animated WebP when asked for', async () => {
    const webp = { ...clip, frames: 5, outputFormat: OutputFormat.OUTPUT_FORMAT_WEBP };
    const outcome = await run(webp);
    expect(completed(outcome).assets[0]?.contentType).toBe('image/webp');
    const file = outcome.files[0] ?? Buffer.alloc(0);
    expect((await sharp(file, { animated: true }).metadata()).pages).toBe(5);
    expect(await readParameters(file)).toContain('a red kite over a field');
    expect(await xmpProperty(file, 'DigitalSourceType')).toMatch(/trainedAlgorithmicMedia$/);
    const none = await run({ ...webp, outputQuality: 5, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE });
    expect(none.files[0]?.includes('XMP ')).toBe(false);
    expect(none.files[0]?.length).toBeLessThan(file.length / 2);
  });

  it('sends previews of a frame', async () => {
    const outcome = await run({ ...clip, steps: 6, previewsPerSecond: 4 });
    const previews = outcome.events.flatMap(({ event }) => (event?.$case === 'preview' ? [event.value] : []));
    expect(previews.length).toBeGreaterThan(0);
    expect((await sharp(previews[0]?.image).metadata()).format).toBe('jpeg');
  });

  it('says nothing of itself when told to', async () => {
    const of = async (outputMetadata: OutputMetadata) =>
      (await run({ ...clip, frames: 5, outputMetadata })).files[0]?.toString('latin1');
    expect(await of(OutputMetadata.OUTPUT_METADATA_FULL)).toContain('a red kite over a field');
    const provenance = await of(OutputMetadata.OUTPUT_METADATA_PROVENANCE);
    expect(provenance).toContain('trainedAlgorithmicMedia');
    expect(provenance).not.toContain('red kite');
    expect(await of(OutputMetadata.OUTPUT_METADATA_NONE)).not.toMatch(/trainedAlgorithmicMedia|red kite/);
  });

  it('leaves no ffmpeg and no file when it is cancelled while it decodes', async () => {
    const abort = new AbortController();
    const cancelled = outcomeOf(
      serving.client,
      { ...clip, frames: 81, steps: 1, width: 128, height: 128 },
      {
        signal: abort.signal,
        onEvent: ({ event }) =>
          event?.$case === 'progress' && event.value.phase === 3 && event.value.step === 2 && abort.abort(),
      },
    );
    expect((await cancelled).error?.reason).toBe('CANCELLED');
    await until(() => serving.engine.state === 'ready');
    // Other test files have folders of their own meanwhile.
    const own = `darkroom-video-${serving.engine.pid}-`;
    expect((await readdir(tmpdir())).filter((name) => name.startsWith(own))).toEqual([]);
    const { stdout } = await promisify(execFile)('ps', ['-o', 'args=', '--ppid', String(serving.engine.pid)]).catch(
      () => ({ stdout: '' }),
    );
    expect(stdout).not.toContain('ffmpeg');
  });
});

describe('an engine that is killed while it writes a clip', () => {
  it('leaves no ffmpeg, and nothing once the next one has started', async () => {
    const { pid = 0 } = serving.engine;
    const left = () => readdirSync(tmpdir()).filter((name) => name.startsWith(`darkroom-video-${pid}-`));
    let meanwhile: readonly string[] = [];
    const killed = outcomeOf(
      serving.client,
      { ...clip, frames: 81, steps: 1, width: 128, height: 128 },
      {
        onEvent: ({ event }) => {
          if (event?.$case !== 'progress' || event.value.phase !== 3 || event.value.step !== 3) return;
          meanwhile = left();
          process.kill(pid, 'SIGKILL');
        },
      },
    );
    expect((await killed).error).toMatchObject({ reason: 'ENGINE_CRASHED', retryable: true });
    expect(meanwhile).toHaveLength(1);
    await serving.engine.whenReady();
    await until(() => left().length === 0);
    expect(completed(await run(clip)).metadata.frames).toBe(9);
  });
});

describe('an image job of WAN', () => {
  it('gives one frame as PNG', async () => {
    const outcome = await run({ ...small, jobType: JobType.JOB_TYPE_IMAGE_FAST });
    const { metadata, assets } = completed(outcome);
    expect([assets.length, assets[0]?.contentType, metadata.frames]).toEqual([1, 'image/png', 1]);
    expect(await sharp(outcome.files[0]).metadata()).toMatchObject({ format: 'png', width: 64, height: 64 });
  });

  it('starts from a single reference', async () => {
    const references = [reference(await picture(220), SINGLE)];
    const { metadata } = completed(
      await run({ ...small, steps: 10, jobType: JobType.JOB_TYPE_IMAGE_FAST, references }),
    );
    expect(metadata).toMatchObject({
      referenceMode: 'single',
      referenceMethod: 'img2img',
      referenceStrength: 0.85,
      denoisingStrength: 0.4,
    });
    expect(metadata.guidanceScale).toBeCloseTo(5 + 4 * 0.85, 9);
  });
});

describe('references of a clip', () => {
  /** Mean distance of a clip's frame from a picture that was fitted and went through the VAE like it. */
  const first = async (outcome: Outcome) => sharp(outcome.files[1]).raw().toBuffer();

  it.each([
    ['single', [SINGLE]],
    ['start', [START]],
    ['end', [END]],
    ['both', [START, END]],
    ['both', [END, START]],
  ] as const)('%s: are held, and the metadata says so', async (mode, roles) => {
    const references = await Promise.all(
      roles.map(async (role, i) => reference(await picture(60 + 120 * i), role, 0.5)),
    );
    const { metadata } = completed(await run({ ...clip, references }));
    expect(metadata).toMatchObject({
      referenceMode: mode,
      referenceApplied: true,
      referenceMethod: 'latent_hold',
      referenceStrength: 0.5,
      guidanceScale: 7,
    });
  });

  it('has one strength for two references, whichever has it, and refuses two', async () => {
    const bytes = await picture(1);
    const of = async (start?: number, end?: number) =>
      run({ ...clip, references: [reference(bytes, START, start), reference(bytes, END, end)] });
    expect(completed(await of(undefined, 0.4)).metadata.referenceStrength).toBe(0.4);
    expect((await of(0.4, 0.5)).error?.violations.map(({ description }) => description)).toEqual([
      'references[1].strength 0.5 must be that of references[0], 0.4; one strength counts for all',
    ]);
  });

  it('make the first frame the more like them the stronger they are', async () => {
    const bytes = await picture(220);
    const held = async (strength: number) => {
      const outcome = await run({
        ...clip,
        steps: 10,
        guidanceScale: 1,
        references: [reference(bytes, START, strength)],
      });
      return first(outcome);
    };
    const exact = await held(1);
    const distance = (frame: Buffer) =>
      frame.reduce((sum, value, i) => sum + Math.abs(value - (exact[i] ?? 0)), 0) / frame.length;
    const free = await first(await run({ ...clip, steps: 10, guidanceScale: 1 }));
    const [weak, strong] = [distance(await held(0.1)), distance(await held(0.9))];
    expect(strong).toBeLessThan(weak);
    expect(strong).toBeLessThan(distance(free));
  });
});

describe('what WAN does not take', () => {
  it.each([
    ['weights', { weights: '(sea:1.2)' }, 'weights are for SDXL; leave them out for WAN'],
    ['three pictures', { numImages: 3 }, 'num_images 3 must be 1 for WAN'],
    [
      'PNG for a clip',
      { outputFormat: OutputFormat.OUTPUT_FORMAT_PNG },
      'output_format of a video must be OUTPUT_FORMAT_MP4 or OUTPUT_FORMAT_WEBP',
    ],
    ['a width that is no multiple of 16', { width: 72 }, 'width 72 must be a multiple of 16; use 64 or 80'],
    ['too many frames', { frames: 200 }, 'frames 200 must be >= 1 and <= 161; lower it or raise LIMIT_FRAMES'],
    [
      'a scheduler of SDXL',
      { scheduler: 'ddim' },
      'scheduler "ddim" must be one of flow_unipc, flow_unipc_diffusers, flow_euler, flow_lcm',
    ],
  ])('refuses %s', async (_, more, sentence) => {
    const { error } = await run({ ...clip, ...more });
    expect(error?.violations.map(({ description }) => description)).toEqual([sentence]);
  });

  it('refuses SDXL where no SDXL is served', async () => {
    expect((await run({ ...small, jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST })).error?.reason).toBe('MODEL_NOT_FOUND');
  });

  it('refuses clips, and nothing else, where there is no ffmpeg', async () => {
    const other = await serve({ WAN_PATH: inject('tinyWan'), FFMPEG_PATH: '/nowhere/ffmpeg' });
    try {
      const { error } = await outcomeOf(other.client, clip);
      expect([error?.status, error?.reason, error?.message]).toEqual([
        'FAILED_PRECONDITION',
        'FFMPEG_MISSING',
        'videos need ffmpeg: /nowhere/ffmpeg does not run; apt-get install ffmpeg, or set FFMPEG_PATH',
      ]);
      const { error: none } = await outcomeOf(other.client, { ...small, jobType: JobType.JOB_TYPE_IMAGE_FAST });
      expect(none).toBeUndefined();
    } finally {
      await other.stop();
    }
  });
});

describe('Estimate of a clip', () => {
  it('tells its frames and, once one was made, its seconds', async () => {
    expect(kinds((await run(clip)).events)).toContain('completed');
    const { frames, seconds } = await estimate(serving.client, { ...clip, frames: 11 });
    expect(frames).toBe(9);
    expect(seconds).toBeGreaterThan(0);
  });
});
