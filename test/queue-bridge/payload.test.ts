import { describe, expect, it } from 'vitest';
import {
  DisconnectPolicy,
  JobType,
  jobTypeToJSON,
  OutputFormat,
  ReferenceRole,
  ReferenceType,
} from '../../src/gen/darkroom/v1/job.js';
import { type JobTypeInfo, contractJobTypes as jobTypes, jobTypesOf } from '../../src/job-types.js';
import { classifyPayload } from '../../src/queue-bridge/classify-payload.js';
import { generateRequestFrom } from '../../src/queue-bridge/payload/generate-request.js';
import { type ReadJob, readPayload as readPayloadOf, safeUserName } from '../../src/queue-bridge/payload/payload.js';

const least = { id: 'a', type: 'sdxl_image_fast', prompt: 'a kite', user_id: 'u' };
const readPayload = (raw: string, bytes?: number) =>
  readPayloadOf(raw, { jobTypes, ...(bytes !== undefined && { bytes }) });
const read = (fields: Readonly<Record<string, unknown>>) => readPayload(JSON.stringify({ ...least, ...fields }));
const jobOf = (fields: Readonly<Record<string, unknown>>): ReadJob => {
  const result = read(fields);
  if (result.kind !== 'job') throw new Error(result.problem);
  return result;
};
const request = (fields: Readonly<Record<string, unknown>>) =>
  generateRequestFrom(jobOf(fields), { jobId: 'a', seed: 42 });

describe('a payload', () => {
  it.each([
    ['not JSON', '{"id": "a"', 'the payload is not JSON'],
    ['nothing', '', 'the payload is not JSON'],
    ['null', 'null', 'the payload is not a JSON object'],
    ['a list', '[{"id":"a"}]', 'the payload is not a JSON object'],
    ['a string', '"a"', 'the payload is not a JSON object'],
    ['no id', '{}', 'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"'],
    ['an id that is a number', '{"id":1}', 'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"'],
    [
      'an id that leaves its folder',
      '{"id":"../x"}',
      'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"',
    ],
    ['an id that is a folder', '{"id":".."}', 'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"'],
  ])('of %s is rejected without an id', (_, raw, problem) => {
    expect(readPayload(raw)).toEqual({ kind: 'unusable', problem });
  });

  it.each([
    [
      'an unknown type',
      { type: 'sdxl_image_slow' },
      /^type "sdxl_image_slow" must be one of sdxl_image_fast, .*video7b_high_enhanced$/,
    ],
    ['no prompt', { prompt: undefined }, /^prompt must be a string$/],
    ['a user that leaves its folder', { user_id: '../bob' }, /^user_id must be 1 to 120 letters/],
    ['a seed in words', { config: { seed: 'x' } }, /^config\.seed must be a whole number up to 2\^53 - 1$/],
    ['a seed that JSON cannot hold', { config: { seed: 2 ** 60 } }, /^config\.seed /],
    ['half an image', { config: { num_images: 1.5 } }, /^config\.num_images must be a whole number$/],
    ['a config that is a list', { config: [[[]]] }, /^config /],
    [
      'an unknown reference type',
      { metadata: { reference_type: 'mood' } },
      /^metadata\.reference_type must be style, composition or character$/,
    ],
    ['several mistakes', { prompt: 1, config: { width: -1 } }, /^prompt must be a string; config\.width must be >= 0$/],
  ])('with %s gets a problem that names the field', (_, fields, problem) => {
    expect(read(fields)).toMatchObject({ kind: 'invalid', id: 'a', problem: expect.stringMatching(problem) });
  });

  it('reads null as an absent field', () => {
    const config = { seed: null, width: null, image: null };
    expect(read({ config, metadata: null, compel_weights: null }).kind).toBe('job');
  });

  it('reads an empty text and an empty list as absent, in every optional field and object', () => {
    const config = { seed: '', width: '', image: '', negative_prompt: '', output_format: '', frames: [] };
    const { payload } = jobOf({ config, metadata: [], compel_weights: '', compel_enabled: '' });
    expect(payload.config).toEqual({});
    expect([payload.metadata, payload.compel_weights, payload.compel_enabled]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    const image = 'https://a.test/b.png';
    const [reference] = request({ config: { image: '' }, metadata: { reference_image_url: image } }).references;
    expect(reference?.source).toEqual({ $case: 'url', value: image });
  });

  it.each([
    ['a random seed', { config: { seed: -1 } }, { seed: 42n }],
    [
      'numbers as texts',
      { config: { seed: '7', width: '512', guidance_scale: '6.5' } },
      { seed: 7n, width: 512, guidanceScale: 6.5 },
    ],
    ['the largest seed as a text', { config: { seed: '9007199254740991' } }, { seed: 9007199254740991n }],
    ['jpg', { config: { output_format: 'JPG' } }, { outputFormat: OutputFormat.OUTPUT_FORMAT_JPEG }],
    ['a flag as a number', { compel_enabled: 1, compel_weights: '(sea:1.2)' }, { weights: '(sea:1.2)' }],
  ])('understands what frontends write for %s', (_, fields, expected) => {
    expect(request(fields)).toMatchObject(expected);
  });

  it.each(['9007199254740992', '9007199254740993', '-2'])('refuses the seed %s exactly', (seed) => {
    expect(read({ config: { seed } })).toMatchObject({
      kind: 'invalid',
      problem: expect.stringMatching(/^config\.seed /),
    });
    expect(read({ config: { seed: Number(seed) } }).kind).toBe('invalid');
  });

  it('takes e-mail addresses as users, each with a name of its own in file names', () => {
    const users = ['ann@example.com', 'ann+1@example.com', 'ann_1@example.com', 'Ann Müller', 'ann'];
    for (const user of users) expect(jobOf({ user_id: user }).payload.user_id).toBe(user);
    const names = users.map(safeUserName);
    expect(new Set(names).size).toBe(users.length);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._:-]{1,120}$/);
    expect(safeUserName('ann')).toBe('ann');
  });

  it('ignores unknown fields, however deep', () => {
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
    expect(readPayload(`{"id":"a","type":"image_fast","prompt":"","user_id":"u","extra":${deep}}`).kind).toBe('job');
    expect(readPayload(`{"id":"a","type":"image_fast","prompt":${deep},"user_id":"u"}`)).toMatchObject({
      kind: 'invalid',
      problem: 'prompt must be a string',
    });
  });

  it('labels the job with its user and unknown fields, as far as a server accepts them', () => {
    const extra = { plan: 'pro', tags: ['a', 1], long: 'x'.repeat(2000), gone: null };
    expect(read(extra)).toMatchObject({ labels: { user_id: 'u', plan: 'pro', tags: '["a",1]', gone: 'null' } });
    const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`f${i}`, i]));
    const result = read(many);
    expect(result.kind === 'job' && Object.keys(result.labels)).toHaveLength(64);
  });

  it('of ten megabytes gets a problem with its size, and one of 40 MB is not read at all', () => {
    const raw = JSON.stringify({ extra: 'x'.repeat(10_000_000), ...least });
    expect(readPayload(raw)).toMatchObject({
      kind: 'invalid',
      id: 'a',
      problem: `the payload of ${raw.length} bytes must be <= 1048576`,
    });
    expect(readPayload(raw.slice(0, 100), 40_000_000)).toMatchObject({ kind: 'unusable' });
  });
});

describe('a classified payload', () => {
  const lanes = [
    { name: 'sdxl', queue: 'sdxl_queue' },
    { name: 'wan', queue: 'wan_queue' },
  ];
  const classify = (fields: object, queue = 'sdxl_queue') => {
    const raw = JSON.stringify({ ...least, ...fields });
    return classifyPayload({ queue, sha1: '', bytes: Buffer.byteLength(raw), raw }, { jobTypes, lanes });
  };

  it.each([
    ['its type', { type: 'video_fast' }, 'sdxl_queue', 'job', 'wan'],
    ['its type, though it cannot run', { type: 'video_fast', prompt: 1 }, 'sdxl_queue', 'refused', 'wan'],
    ['its list if its type is unknown', { type: 'other' }, 'wan_queue', 'refused', 'wan'],
  ])('gets the lane of %s', (_, fields, queue, kind, lane) => {
    expect(classify(fields, queue)).toMatchObject({ kind, lane });
  });
});

describe('a request from a payload', () => {
  it.each([...jobTypes.keys()])('of type %s names its preset', (type) => {
    expect(jobTypeToJSON(request({ type }).jobType)).toBe(`JOB_TYPE_${type.toUpperCase()}`);
  });

  it('names the model of a type that the API has no value for, and sends what its preset would be', () => {
    const paint: JobTypeInfo = {
      name: 'paint_fast',
      value: JobType.JOB_TYPE_UNSPECIFIED,
      family: 'paint',
      makes: 'images',
      steps: 4,
      guidanceScale: 1.5,
      isEnhanced: false,
      takesWeights: false,
      expectedSeconds: () => 1,
    };
    const of = (row: JobTypeInfo, config = {}) => {
      const read = readPayloadOf(JSON.stringify({ ...least, type: row.name, config }), { jobTypes: jobTypesOf([row]) });
      if (read.kind !== 'job') throw new Error(read.problem);
      return generateRequestFrom(read, { jobId: 'a', seed: 42 });
    };
    expect(of(paint)).toMatchObject({ jobType: 0, model: 'paint', steps: 4, guidanceScale: 1.5 });
    expect(of({ ...paint, model: 'paint-large' })).toMatchObject({ model: 'paint-large' });
    expect(of(paint, { steps: 9, guidance_scale: 2 })).toMatchObject({ steps: 9, guidanceScale: 2 });
    // The server's preset decides instead.
    expect(of(paint, { sampling_preset: 'quick' })).toMatchObject({ samplingPreset: 'quick', steps: undefined });
    expect(of(paint, { sampling_preset: 'none' })).toMatchObject({ samplingPreset: 'none', steps: 4 });
    expect(request({})).toMatchObject({ model: '', steps: undefined, guidanceScale: undefined });
  });

  it('has the id and the seed of the journal, and continues without its bridge', () => {
    expect(request({})).toMatchObject({
      jobId: 'a',
      prompt: 'a kite',
      seed: 42n,
      disconnectPolicy: DisconnectPolicy.DISCONNECT_POLICY_CONTINUE,
      labels: { user_id: 'u' },
      negativePrompt: undefined,
      steps: undefined,
      guidanceScale: undefined,
    });
  });

  it('takes the values of config', () => {
    const config = {
      seed: 7,
      num_images: 3,
      negative_prompt: 'blurry',
      width: 512,
      height: 768,
      steps: 9,
      guidance_scale: 4.5,
      scheduler: 'dpmpp_2m',
      output_format: 'webp',
    };
    expect(request({ config })).toMatchObject({
      seed: 7n,
      numImages: 3,
      negativePrompt: 'blurry',
      width: 512,
      height: 768,
      steps: 9,
      guidanceScale: 4.5,
      scheduler: 'dpmpp_2m',
      outputFormat: OutputFormat.OUTPUT_FORMAT_WEBP,
    });
    const clip = { type: 'video_fast', config: { frame_num: 83, sample_guide_scale: 6.5, sample_steps: 20 } };
    expect(request(clip)).toMatchObject({ frames: 83, guidanceScale: 6.5, steps: 20 });
  });

  it.each([
    ['enabled', { compel_enabled: true }, '(kite:1.3)'],
    ['not enabled', { compel_enabled: false }, ''],
    ['not mentioned', {}, ''],
    ['of WAN', { compel_enabled: true, type: 'video_fast' }, ''],
  ])('with weights that are %s', (_, fields, weights) => {
    expect(request({ compel_weights: '(kite:1.3)', ...fields }).weights).toBe(weights);
  });

  const role = {
    single: ReferenceRole.REFERENCE_ROLE_UNSPECIFIED,
    start: ReferenceRole.REFERENCE_ROLE_START,
    end: ReferenceRole.REFERENCE_ROLE_END,
  };
  it.each([
    ['none', 'video_fast', {}, {}, []],
    ['single', 'sdxl_image_fast', { image: 'c' }, { reference_image_url: 'm' }, [['c', role.single]]],
    ['single, in the metadata', 'image_fast', {}, { reference_image_url: 'm' }, [['m', role.single]]],
    ['single of a clip', 'video_fast', {}, { reference_image_url: 'm' }, [['m', role.single]]],
    ['start', 'video_fast', { first_frame: 'c' }, { start_reference_url: 'm' }, [['c', role.start]]],
    ['end', 'video_high', {}, { end_reference_url: 'm' }, [['m', role.end]]],
    [
      'both',
      'video_fast',
      { first_frame: 's' },
      { end_reference_url: 'e' },
      [
        ['s', role.start],
        ['e', role.end],
      ],
    ],
    [
      'both, the start a single one',
      'video_fast',
      { image: 's', last_frame: 'e' },
      {},
      [
        ['s', role.start],
        ['e', role.end],
      ],
    ],
    ['start beside a single one', 'video_fast', { image: 'x', first_frame: 's' }, {}, [['s', role.start]]],
  ])('has the references of mode %s', (_, type, config, metadata, wanted) => {
    const { references } = request({
      type,
      config,
      metadata: { ...metadata, reference_type: 'style', reference_strength: 0.4 },
    });
    expect(references.map(({ source, role: at }) => [source?.value, at])).toEqual(wanted);
    for (const { type: kind, strength } of references) {
      expect([kind, strength]).toEqual([ReferenceType.REFERENCE_TYPE_STYLE, 0.4]);
    }
  });

  it('has the look of a video beside its frames', () => {
    const config = { first_frame: 'https://a.test/a.png', look: 'https://a.test/look.png' };
    const roles = request({ type: 'video_fast', config }).references.map(({ role }) => role);
    expect(roles).toEqual([ReferenceRole.REFERENCE_ROLE_START, ReferenceRole.REFERENCE_ROLE_LOOK]);
    expect(request({ type: 'image_fast', config: { look: config.look } }).references).toEqual([]);
  });

  it('has the ControlNets of an SDXL image; other types ignore them', () => {
    const config = {
      controls: [{ name: 'depth', image: 'https://a.test/depth.png', scale: '0.5', end: 0.8, mode: 'depth' }],
    };
    const source = { $case: 'url', value: 'https://a.test/depth.png' };
    expect(request({ type: 'sdxl_image_fast', config }).controls).toEqual([
      { name: 'depth', source, scale: 0.5, start: undefined, end: 0.8, mode: 2 },
    ]);
    expect(request({ type: 'image_fast', config }).controls).toEqual([]);
  });

  it('has the control video of a video; other types ignore it', () => {
    const config = { control_video: 'https://a.test/pose.mp4', control_video_scale: '0.5' };
    const controlVideo = { source: { $case: 'url', value: config.control_video }, scale: 0.5 };
    expect(request({ type: 'video_fast', config }).controlVideo).toEqual(controlVideo);
    expect(request({ type: 'image_fast', config }).controlVideo).toBeUndefined();
    expect(request({ type: 'video_fast', config: { control_video: '' } }).controlVideo).toBeUndefined();
  });

  it('passes a sampling preset on', () => {
    const config = { sampling_preset: 'lightning_4' };
    expect(request({ type: 'sdxl_image_fast', config }).samplingPreset).toBe('lightning_4');
    expect(request({ type: 'sdxl_image_fast', config: { sampling_preset: '' } }).samplingPreset).toBe('');
  });

  it('passes dynamic thresholding on', () => {
    const config = { dynamic_thresholding: { mimic_scale: '7', percentile: 0.95 } };
    for (const type of ['video_fast', 'sdxl_image_fast']) {
      expect(request({ type, config }).dynamicThresholding).toEqual({ mimicScale: 7, percentile: 0.95 });
    }
    expect(request({ config: {} }).dynamicThresholding).toBeUndefined();
  });

  it('passes skip-layer guidance on to the models that take it', () => {
    const config = { skip_layer_guidance: { layers: [9, '10'], start: 0.1, end: '0.9', scale: null } };
    const skipLayerGuidance = { layers: [9, 10], start: 0.1, end: 0.9, scale: 0 };
    expect(request({ type: 'video_fast', config }).skipLayerGuidance).toEqual(skipLayerGuidance);
    expect(request({ type: 'sdxl_image_fast', config }).skipLayerGuidance).toBeUndefined();
  });

  it('has the mask of an SDXL image; other types ignore it', () => {
    const config = {
      image: 'https://a.test/photo.png',
      mask: 'https://a.test/mask.png',
      mask_blur: 4,
      mask_crop_padding: 32,
    };
    const mask = { source: { $case: 'url', value: config.mask }, blur: 4, cropPadding: 32 };
    expect(request({ type: 'sdxl_image_fast', config }).mask).toEqual(mask);
    expect(request({ type: 'image_fast', config }).mask).toBeUndefined();
  });
});
