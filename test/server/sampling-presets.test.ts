import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { JobType, ReferenceRole, ReferenceType } from '../../src/gen/darkroom/v1/job.js';
import { builtInFamilies } from '../../src/pipelines/families.js';
import { familyNamed } from '../../src/pipelines/family.js';
import { resolve as resolved } from '../support/resolved.js';
import { metadataOf, modelsOf, outcomeOf, type Serving, serve } from '../support/serving.js';

const resolve = (request: Partial<GenerateRequest>, family?: string, variables?: Parameters<typeof readConfig>[0]) =>
  resolved({ prompt: 'a house', ...request }, family, undefined, variables);

const { JOB_TYPE_SDXL_IMAGE_FAST: SDXL, JOB_TYPE_VIDEO_FAST: VIDEO } = JobType;

describe('a sampling preset', () => {
  it.each(
    builtInFamilies.flatMap(({ name, samplingPresets }) =>
      Object.keys(samplingPresets).map((preset) => [name, preset] as const),
    ),
  )('%s %s is scheduler, steps and guidance that the family has', (name, preset) => {
    const jobType = name === 'sdxl' ? SDXL : VIDEO;
    const { request, samplingPreset } = resolve({ jobType, samplingPreset: preset }, name);
    expect(samplingPreset).toBe(preset);
    const { shift, ...settings } = familyNamed(builtInFamilies, name).samplingPresets[preset] ?? {};
    expect(request).toMatchObject(settings);
    expect(request.video?.shift).toBe(shift);
  });

  it('takes the place of the values of the job type, and not of those of the request', () => {
    const { request } = resolve({ jobType: SDXL, samplingPreset: 'lightning_4', steps: 6 });
    expect(request).toMatchObject({ steps: 6, guidanceScale: 0, scheduler: 'euler_trailing' });
    const own = resolve({ jobType: SDXL, samplingPreset: 'lightning_4', guidanceScale: 2, scheduler: 'euler' }).request;
    expect(own).toMatchObject({ steps: 4, guidanceScale: 2, scheduler: 'euler' });
  });

  it('of WAN has a shift, and its guidance is not raised by a reference', () => {
    const reference = {
      source: { $case: 'url', value: 'https://a.test/kite.png' } as const,
      type: ReferenceType.REFERENCE_TYPE_UNSPECIFIED,
      role: ReferenceRole.REFERENCE_ROLE_START,
      strength: 1,
      denoisingStrength: undefined,
    };
    const variables = { REFERENCE_HOSTS: 'a.test' };
    const request = { jobType: VIDEO, references: [reference] };
    expect(resolve(request, 'wan', variables).request.guidanceScale).toBe(9);
    const distilled = resolve({ ...request, samplingPreset: 'lightx2v' }, 'wan', variables).request;
    expect(distilled).toMatchObject({ guidanceScale: 1, steps: 4, video: { shift: 5 } });
  });

  it('of the operator applies to requests that name none, and none turns it off', () => {
    const variables = { SDXL_SAMPLING_PRESET: 'lightning_8' };
    expect(resolve({ jobType: SDXL }, 'sdxl', variables)).toMatchObject({
      samplingPreset: 'lightning_8',
      request: { steps: 8, guidanceScale: 0 },
    });
    expect(resolve({ jobType: SDXL, samplingPreset: 'dmd2' }, 'sdxl', variables).samplingPreset).toBe('dmd2');
    const off = resolve({ jobType: SDXL, samplingPreset: 'none' }, 'sdxl', variables);
    expect([off.samplingPreset, off.request.steps, off.request.guidanceScale]).toEqual([undefined, 15, 6]);
  });

  it.each([
    [
      'sdxl',
      SDXL,
      'lightning',
      'sampling_preset "lightning" must be one of turbo, lightning_2, lightning_4, lightning_8, hyper_2, hyper_4, hyper_8, tcd, dmd2, lcm, none',
    ],
    ['wan', VIDEO, 'constructor', 'sampling_preset "constructor" must be one of self_forcing, lightx2v, none'],
  ] as const)(
    'of %s that does not exist is refused with those that do',
    (family, jobType, samplingPreset, sentence) => {
      expect(() => resolve({ jobType, samplingPreset }, family)).toThrow(sentence);
    },
  );

  it('of the operator that does not exist is refused at the start', () => {
    expect(() => readConfig({ WAN_SAMPLING_PRESET: 'turbo' })).toThrow(
      /WAN_SAMPLING_PRESET "turbo": must be one of self_forcing, lightx2v$/,
    );
  });
});

describe('a server of a distilled model', () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve({ SDXL_SAMPLING_PRESET: 'hyper_2' });
  });
  afterAll(() => serving.stop());

  it('runs every job with the operator’s preset, says so, and lists it', async () => {
    const request = { prompt: 'a house', jobType: SDXL, width: 64, height: 64 };
    const metadata = metadataOf(await outcomeOf(serving.client, request));
    expect(metadata).toMatchObject({
      steps: 2,
      guidanceScale: 0,
      scheduler: 'ddim_trailing',
      samplingPreset: 'hyper_2',
    });
    const [model] = await modelsOf(serving);
    expect(model?.takes).toContain('sampling_preset');
    expect(model?.samplingPresets.filter(({ isDefault }) => isDefault)).toEqual([
      { name: 'hyper_2', scheduler: 'ddim_trailing', steps: 2, guidanceScale: 0, isDefault: true },
    ]);
  });
});
