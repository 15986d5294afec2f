import { describe, expect, it } from 'vitest';
import { type FieldViolation, InferenceError } from '../../src/errors.js';
import { type DeepPartial, GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { type DynamicThresholding, JobType, Reference } from '../../src/gen/darkroom/v1/job.js';
import { hashRequest } from '../../src/server/request/hash-request.js';
import { resolve } from '../support/resolved.js';

function allViolations(...call: Parameters<typeof resolve>): readonly FieldViolation[] {
  try {
    resolve(...call);
  } catch (error) {
    if (!(error instanceof InferenceError) || error.reason !== 'INVALID_REQUEST') throw error;
    return error.violations;
  }
  return [];
}

function violationsOf(...call: Parameters<typeof resolve>): Record<string, string> {
  return Object.fromEntries(allViolations(...call).map(({ field, description }) => [field, description]));
}

describe('resolveRequest', () => {
  it('fills in the preset and the defaults', () => {
    const plan = resolve({ prompt: 'a house', jobType: JobType.JOB_TYPE_SDXL_IMAGE_HIGH, numImages: 3 });
    const { seeds, ...rest } = plan.request;
    expect(rest).toEqual({
      prompt: 'a house',
      negativePrompt: 'blurry, low quality, deformed, watermark, text',
      width: 1024,
      height: 1024,
      steps: 25,
      guidanceScale: 7.5,
      scheduler: 'euler',
      promptSyntax: 'plain',
      weights: '',
      previewsPerSecond: 0,
    });
    expect(plan.output).toEqual({ format: 'png', metadata: 'full' });
    expect(plan.references).toBeUndefined();
    expect(seeds[0]).toBeGreaterThanOrEqual(1);
    expect(seeds[0]).toBeLessThanOrEqual(999_999_999);
    expect(seeds).toEqual([0, 1, 2].map((k) => (seeds[0] ?? 0) + k));
  });

  it('holds the length of a model that a request leaves to it to the limit of frames', () => {
    const info = { clip: { frames: 121, fps: 24 } };
    const video = { prompt: 'a house', jobType: JobType.JOB_TYPE_VIDEO_FAST };
    const frames = 'frames 121 must be >= 1 and <= 81; lower it or raise LIMIT_FRAMES';
    expect(violationsOf(video, 'wan', info, { LIMIT_FRAMES: '81' })).toEqual({ frames });
    expect(violationsOf({ ...video, frames: 81 }, 'wan', info, { LIMIT_FRAMES: '81' })).toEqual({});
    expect(violationsOf(video, 'wan', info, { LIMIT_FRAMES: '121' })).toEqual({});
  });

  it('extends the negative prompt where there is more than one person', () => {
    const { request } = resolve({ prompt: 'two friends on a bench', jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST });
    expect(request.negativePrompt).toContain('duplicate people');
  });

  it('leaves the negative prompt absent where no preset was named', () => {
    expect(resolve({ prompt: 'a house' }).request.negativePrompt).toBeUndefined();
    expect(resolve({ prompt: 'a house', negativePrompt: '' }).request.negativePrompt).toBe('');
  });

  const bad: readonly [Partial<GenerateRequest>, string, string][] = [
    [{ width: 1025 }, 'width', 'width 1025 must be a multiple of 8; use 1024 or 1032'],
    [{ width: 56 }, 'width', 'width 56 must be >= 64 and <= 2048'],
    [{ height: 2056 }, 'height', 'height 2056 must be >= 64 and <= 2048; lower it or raise LIMIT_SIDE_PIXELS'],
    [{ steps: 0 }, 'steps', 'steps 0 must be >= 1 and <= 1000'],
    [{ steps: 1001 }, 'steps', 'steps 1001 must be >= 1 and <= 1000; lower it or raise LIMIT_STEPS'],
    [{ steps: 10_001 }, 'steps', 'steps 10001 must be >= 1 and <= 1000; lower it or raise LIMIT_STEPS'],
    [{ guidanceScale: 50.5 }, 'guidance_scale', 'guidance_scale 50.5 must be >= 0 and <= 50'],
    [{ guidanceRescale: 1.1 }, 'guidance_rescale', 'guidance_rescale 1.1 must be >= 0 and <= 1'],
    [{ guidanceScale: Number.NaN }, 'guidance_scale', 'guidance_scale NaN must be >= 0 and <= 50'],
    [{ numImages: 2 }, 'num_images', 'num_images 2 must be 1, 3 or 6'],
    [{ seed: -1n }, 'seed', 'seed -1 must be >= 0 and, with num_images added, <= 9007199254740991'],
    [
      { seed: 2n ** 53n - 1n, numImages: 3 },
      'seed',
      'seed 9007199254740991 must be >= 0 and, with num_images added, <= 9007199254740991',
    ],
    [
      { prompt: 'x'.repeat(1_000_000) },
      'prompt',
      'prompt of 1000000 bytes must be <= 16384; shorten it or raise LIMIT_PROMPT_BYTES',
    ],
    [
      { prompt: 'é'.repeat(8193) },
      'prompt',
      'prompt of 16386 bytes must be <= 16384; shorten it or raise LIMIT_PROMPT_BYTES',
    ],
    [{ prompt: 'a\0b' }, 'prompt', 'prompt has a NUL character; remove it'],
    [{ negativePrompt: '\0' }, 'negative_prompt', 'negative_prompt has a NUL character; remove it'],
    [
      { jobId: 'a/b' },
      'job_id',
      'job_id must be 1 to 128 letters, digits, ".", "_", ":" or "-"; leave it empty to have one chosen',
    ],
    [{ jobType: 99 as JobType }, 'job_type', 'job_type 99 is unknown; use a value of JobType'],
    [
      { guidanceInterval: { start: 0, end: 1 } },
      'guidance_interval',
      'guidance_interval is for WAN; leave it out for SDXL',
    ],
    [{ reuseThreshold: 0.1 }, 'reuse_threshold', 'reuse_threshold is for WAN; leave it out for SDXL'],
    [
      { skipLayerGuidance: { layers: [9], start: undefined, end: undefined, scale: 0 } },
      'skip_layer_guidance',
      'skip_layer_guidance is for WAN; leave it out for SDXL',
    ],
    [{ labels: { key: 'x'.repeat(1025) } }, 'labels', 'labels must be at most 64 entries of 1024 bytes'],
  ];
  it.each(bad)('refuses %o', (request, field, description) => {
    expect(violationsOf({ prompt: 'a house', ...request })).toEqual({ [field]: description });
  });

  const good: readonly Partial<GenerateRequest>[] = [
    { prompt: '' },
    { prompt: 'é'.repeat(8192) },
    { width: 64, height: 2048 },
    { steps: 1000 },
    { guidanceScale: 0 },
    { guidanceRescale: 1 },
    { seed: 2n ** 53n - 1n },
    { seed: 0n },
    { numImages: 6 },
    { jobId: 'a'.repeat(128) },
  ];
  it.each(good)('takes %o', (request) => {
    expect(violationsOf({ prompt: 'a house', ...request })).toEqual({});
  });

  it('refuses a job type of another family, also one of videos', () => {
    const sentence = (family: string, needed: string) =>
      `model "${family}" is of the family ${family}, the job_type needs ${needed}; leave one of them out`;
    const video = { prompt: 'a house', model: 'sdxl', jobType: JobType.JOB_TYPE_VIDEO_FAST };
    expect(violationsOf(video).model).toBe(sentence('sdxl', 'wan'));
    const image = { prompt: 'a house', model: 'wan', jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST };
    expect(violationsOf(image, 'wan').model).toBe(sentence('wan', 'sdxl'));
  });

  it('names every bad field at once', () => {
    expect(Object.keys(violationsOf({ prompt: '\0', width: 1025, steps: 0, numImages: 2 }))).toEqual([
      'prompt',
      'width',
      'steps',
      'num_images',
    ]);
  });
});

describe('a bad field', () => {
  const video = { prompt: 'a house', jobType: JobType.JOB_TYPE_VIDEO_FAST };
  const image = (more: Partial<Reference> = {}) =>
    Reference.fromPartial({ source: { $case: 'image', value: Buffer.of(1) }, ...more });
  const fieldsOf = (request: DeepPartial<GenerateRequest>, ...rest: [string?, object?]) => {
    const found = allViolations(
      GenerateRequest.fromPartial({ prompt: 'a house', ...request } as Partial<GenerateRequest>),
      ...rest,
    );
    return found.map(({ field }) => field);
  };

  it.each<[DeepPartial<GenerateRequest>, string]>([
    [{ references: [image({ strength: 3 })] }, 'references[0].strength'],
    [{ references: [image({ strength: Number.NaN })] }, 'references[0].strength'],
    [{ references: [image()], steps: 0 }, 'steps'],
    [{ references: [image({ denoisingStrength: 0.01 })] }, 'references[0].denoising_strength'],
    [{ loras: [{ name: 'ink', weight: 9 }] }, 'loras[0].weight'],
    [{ prompt: 'a boat <lora:ink:9>' }, 'loras[0].weight'],
    [{ loras: [{ name: 'ink', textEncoderWeight: 9 }] }, 'loras[0].text_encoder_weight'],
    [{ controls: [{ name: 'depth', source: image().source, start: 3 }] }, 'controls[0].start'],
    [{ controls: [{ name: 'depth', source: image().source, end: -1 }] }, 'controls[0].end'],
    [{ upscale: { factor: 2 }, width: 5000 }, 'width'],
    [{ upscale: { strength: 0.5 }, steps: 5000 }, 'steps'],
    [{ upscale: { strength: 0.5 }, steps: 0 }, 'steps'],
    [{ upscale: { upscaler: 'latent' }, steps: 1 }, 'steps'],
    [{ upscale: { upscaler: 'latent', strength: -1 } }, 'upscale.strength'],
    [{ dynamicThresholding: {}, guidanceScale: -1 }, 'guidance_scale'],
  ])('of SDXL is the only one that is reported: %#', (request, field) => {
    expect(fieldsOf(request)).toEqual([field]);
  });

  it.each<[DeepPartial<GenerateRequest>, string]>([
    [{ controls: [{ name: 'depth' }] }, 'controls'],
    [{ controls: new Array(5).fill({ name: 'depth', scale: 9 }) }, 'controls'],
    [{ mask: { blur: 99 }, references: [image()] }, 'mask'],
    [{ upscale: { factor: 9 } }, 'upscale'],
    [{ guidanceRescale: 9 }, 'guidance_rescale'],
    [{ deepCacheInterval: 99 }, 'deep_cache_interval'],
    [{ weights: '(a:1.2)', promptSyntax: 1 }, 'weights'],
    [{ references: [image({ strength: 100 })] }, 'references[0].strength'],
    [{ references: [image({ role: 1 }), image({ role: 2, strength: 3 })] }, 'references[1].strength'],
    [{ guidanceInterval: { start: 3 } }, 'guidance_interval.start'],
    [{ guidanceInterval: { end: -1 } }, 'guidance_interval.end'],
  ])('of WAN is the only one that is reported: %#', (request, field) => {
    expect(fieldsOf({ ...video, ...request }, 'wan')).toEqual([field]);
  });

  it('is held to the bound of the scheduler only where it is inside its own', () => {
    const info = { maxSteps: { euler: 10 } };
    expect(allViolations(GenerateRequest.fromPartial({ steps: 1001 }), 'sdxl', info)).toHaveLength(1);
    expect(fieldsOf({ steps: 11, upscale: { strength: 0.5 } }, 'sdxl', info)).toEqual(['steps']);
  });

  it('of a message that the family does not take is not checked: control_video', () => {
    expect(fieldsOf({ controlVideo: { scale: 9 } })).toEqual(['control_video']);
  });
});

describe('step saving of WAN', () => {
  const start = 'guidance_interval.start';
  const end = 'guidance_interval.end';
  it.each<[Partial<GenerateRequest>, Record<string, string>]>([
    [{ guidanceInterval: { start: -0.1, end: 1 } }, { [start]: `${start} -0.1 must be >= 0 and <= 1` }],
    [{ guidanceInterval: { start: 0, end: 1.01 } }, { [end]: `${end} 1.01 must be >= 0 and <= 1` }],
    [{ guidanceInterval: { start: 0, end: Number.NaN } }, { [end]: `${end} NaN must be >= 0 and <= 1` }],
    [{ guidanceInterval: { start: 0.8, end: 0.2 } }, { [start]: `${start} 0.8 must be <= ${end} 0.2` }],
    [{ reuseThreshold: 1.5 }, { reuse_threshold: 'reuse_threshold 1.5 must be >= 0 and <= 1; 0 is off' }],
    [{ reuseThreshold: -1 }, { reuse_threshold: 'reuse_threshold -1 must be >= 0 and <= 1; 0 is off' }],
    [{ guidanceInterval: { start: 0, end: 1 }, reuseThreshold: 1 }, {}],
    [{ guidanceInterval: { start: 0.5, end: 0.5 } }, {}],
  ])('of %o finds %o', (request, violations) => {
    expect(violationsOf({ prompt: 'a house', ...request }, 'wan')).toEqual(violations);
  });

  it('is off unless asked for, and an end that is unset is the last step', () => {
    const clipOf = (request: Partial<GenerateRequest>) =>
      resolve({ prompt: 'a house', ...request }, 'wan').request.video;
    expect(clipOf({})).toEqual({ frames: 81 });
    const guidanceInterval = { start: 0.25, end: undefined };
    expect(clipOf({ guidanceInterval, reuseThreshold: 0.1 })).toEqual({
      frames: 81,
      guidanceInterval: { start: 0.25, end: 1 },
      reuseThreshold: 0.1,
    });
  });
});

describe('skip-layer guidance of WAN', () => {
  const skipping = { layers: [9], start: undefined, end: undefined, scale: 0 };
  const field = (name: string) => `skip_layer_guidance.${name}`;
  const layers = field('layers');
  const listed = { [layers]: `${layers} must be 1 to 64 blocks, each once` };
  const inside = (name: string, value: number) => `${field(name)} ${value} must be >= 0 and <= 1`;

  it.each<[Partial<typeof skipping> | object, Record<string, string>]>([
    [{}, {}],
    [{ layers: [29, 0], start: 0.1, end: 0.9, scale: 10 }, {}],
    [{ layers: [] }, listed],
    [{ layers: [9, 9] }, listed],
    [{ layers: Array.from({ length: 65 }, (_, i) => i % 30) }, listed],
    [{ layers: [9, 30] }, { [layers]: `${layers} 30 must be <= 29: the model has 30 blocks, from 0` }],
    [{ start: -0.1 }, { [field('start')]: inside('start', -0.1) }],
    [{ end: Number.NaN }, { [field('end')]: inside('end', Number.NaN) }],
    [{ start: 0.8, end: 0.2 }, { [field('start')]: `${field('start')} 0.8 must be <= ${field('end')} 0.2` }],
    [{ scale: 10.5 }, { [field('scale')]: `${field('scale')} 10.5 must be >= 0 and <= 10` }],
    [{ scale: Number.NaN }, { [field('scale')]: `${field('scale')} NaN must be >= 0 and <= 10` }],
  ])('of %o finds %o', (more, violations) => {
    const request = { prompt: 'a house', guidanceScale: 5, skipLayerGuidance: { ...skipping, ...more } };
    expect(violationsOf(request, 'wan')).toEqual(violations);
  });

  it('needs guidance where it has no scale', () => {
    const request = { prompt: 'a house', guidanceScale: 1, skipLayerGuidance: skipping };
    expect(violationsOf(request, 'wan')).toEqual({
      [field('scale')]:
        'skip_layer_guidance.scale 0 needs a guidance_scale above 1, because the unconditional half skips the blocks; raise guidance_scale 1 or set a scale',
    });
    expect(violationsOf({ ...request, skipLayerGuidance: { ...skipping, scale: 2 } }, 'wan')).toEqual({});
  });

  it('fills in its range', () => {
    const request = { prompt: 'a house', skipLayerGuidance: { ...skipping, layers: [29] } };
    expect(resolve(request, 'wan').request.video).toEqual({
      frames: 81,
      skipLayers: { layers: [29], start: 0, end: 1, scale: 0 },
    });
  });
});

describe('dynamic thresholding', () => {
  const field = 'dynamic_thresholding';
  const violations = (more: object, guidanceScale = 5, family?: string) =>
    violationsOf({ prompt: 'a house', guidanceScale, dynamicThresholding: more as DynamicThresholding }, family);

  it.each([
    [{ mimicScale: -1 }, { [`${field}.mimic_scale`]: `${field}.mimic_scale -1 must be >= 0 and <= 50` }],
    [{ mimicScale: 50.5 }, { [`${field}.mimic_scale`]: `${field}.mimic_scale 50.5 must be >= 0 and <= 50` }],
    [{ percentile: Number.NaN }, { [`${field}.percentile`]: `${field}.percentile NaN must be >= 0 and <= 1` }],
    [{ percentile: 1.01 }, { [`${field}.percentile`]: `${field}.percentile 1.01 must be >= 0 and <= 1` }],
    [{ mimicScale: 50, percentile: 0 }, {}],
  ])('of %o finds %o', (more, expected) => {
    expect(violations(more)).toEqual(expected);
    expect(violations(more, 5, 'wan')).toEqual(expected);
  });

  it('needs guidance, and has defaults', () => {
    const needed = `${field} needs a guidance_scale above 1; raise guidance_scale 1 or leave it out`;
    expect(violations({}, 1)).toEqual({ [field]: needed });
    const dynamicThresholding = {} as DynamicThresholding;
    const { request } = resolve({ prompt: 'a house', guidanceScale: 9, dynamicThresholding });
    expect(request.dynamicThresholding).toEqual({ mimicScale: 7, percentile: 1 });
  });
});

describe('hashRequest', () => {
  const hash = (request: Partial<GenerateRequest>) => hashRequest(GenerateRequest.fromPartial(request));

  it('is the same for equal bodies, whatever their id and the order of their labels', () => {
    expect(hash({ jobId: 'a', prompt: 'x', labels: { p: '1', q: '2' } })).toBe(
      hash({ jobId: 'b', prompt: 'x', labels: { q: '2', p: '1' } }),
    );
  });

  it('tells files from each other by their bytes', () => {
    const named = (last: number) =>
      hash({ references: [{ source: { $case: 'image', value: Buffer.from([1, 2, last]) } } as Reference] });
    expect(named(3)).toBe(named(3));
    expect(named(3)).not.toBe(named(4));
  });

  it('tells an absent negative prompt from an empty one', () => {
    expect(hash({ prompt: 'x' })).not.toBe(hash({ prompt: 'x', negativePrompt: '' }));
  });
});
