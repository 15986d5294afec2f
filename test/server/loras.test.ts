import { execFileSync } from 'node:child_process';
import { copyFile, cp, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { pino } from 'pino';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import type { InferenceError } from '../../src/errors.js';
import { JobType, type Lora, OutputMetadata } from '../../src/gen/darkroom/v1/job.js';
import type { Model } from '../../src/gen/darkroom/v1/model_service.js';
import { readWanConfig } from '../../src/pipelines/wan/checkpoint/read-config.js';
import { loraKind } from '../../src/server/request/add-on-kinds.js';
import { AddOnReader } from '../../src/server/request/add-on-reader.js';
import { AddOnRegistry } from '../../src/server/request/add-on-registry.js';
import { createServer } from '../../src/server/server.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { readParameters } from '../support/read-metadata.js';
import { safetensorsBytes } from '../support/safetensors-bytes.js';
import { sdxlImage } from '../support/sdxl-image.js';
import { addOnThread, kinds, metadataOf, modelsOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';
import { readTensorFile, writeTensorFile } from '../support/tensor-file.js';

const golden = (name: string) =>
  fileURLToPath(new URL(`../fixtures/goldens/sdxl-lora/${name}.safetensors`, import.meta.url));
const STYLES = ['ink', 'pastel', 'clay', 'neon', 'paper'] as const;

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await mkdir(join(folder, 'more'));
  for (const [i, name] of STYLES.entries()) await style(join(folder, `${name}.safetensors`), 1 + i / 2);
  await copyFile(golden('conv.peft'), join(folder, 'more', 'shapes.safetensors'));
  serving = await serve({
    SDXL_PATH: inject('wholeSdxl'),
    LORA_DIR: folder,
    LORA_FILES: `outside=${golden('attn.kohya_sgm')}`,
    LORA_VARIANTS: '2',
  });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

/** A LoRA of its own: the golden one, its alphas scaled. */
async function style(path: string, scale: number): Promise<void> {
  const tensors = await readTensorFile(golden('attn.kohya'));
  for (const [key, { dtype, shape, bytes }] of tensors) {
    if (!key.endsWith('.alpha')) continue;
    const alpha = dtype === 'F32' ? bytes.readFloatLE() : 4;
    const scaled = Buffer.alloc(4);
    scaled.writeFloatLE(alpha * scale);
    tensors.set(key, { dtype: 'F32', shape, bytes: scaled });
  }
  await writeTensorFile(path, tensors);
}

const lora = (name: string, weight?: number, textEncoderWeight?: number): Lora => ({ name, weight, textEncoderWeight });
const bare = { ...quick, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
const pictureOf = async (request: object) => {
  const { files, error } = await outcomeOf(serving.client, { ...bare, ...request });
  if (error !== undefined) throw error;
  return new Uint8Array(await sharp(files[0]).raw().toBuffer());
};
const errorOf = async (request: object): Promise<InferenceError | undefined> =>
  (await outcomeOf(serving.client, { ...bare, ...request })).error;
const sdxl = async (): Promise<Model | undefined> => (await modelsOf(serving))[0];

describe('a job with LoRAs', () => {
  it('makes the picture that the pipeline makes with them, and tells what it used', async () => {
    const outcome = await outcomeOf(serving.client, { ...bare, guidanceScale: 5, seed: 3n, loras: [lora('ink', 0.8)] });
    const alone = await sdxlImage({
      path: inject('wholeSdxl'),
      loras: [{ path: join(folder, 'ink.safetensors'), weight: 0.8 }],
    });
    expect(new Uint8Array(await sharp(outcome.files[0]).raw().toBuffer())).toEqual(alone);
    expect(metadataOf(outcome).loras).toEqual([{ name: 'ink', weight: 0.8, textEncoderWeight: 0.8 }]);
  });

  it('announces that a variant is built, once; the bare model stays as it was', async () => {
    const before = await pictureOf({});
    const request = { ...bare, loras: [lora('more/shapes')] };
    const first = await outcomeOf(serving.client, request);
    const second = await outcomeOf(serving.client, { ...request, seed: 2n });
    expect(kinds(first.events)).toContain('modelLoading');
    const loading = first.events.find(({ event }) => event?.$case === 'modelLoading')?.event;
    expect(loading?.value).toMatchObject({ model: 'sdxl', loras: [{ name: 'more/shapes', weight: 1 }] });
    expect(metadataOf(first).buildSeconds).toBeGreaterThan(0);
    expect(kinds(second.events)).not.toContain('modelLoading');
    expect(metadataOf(second).buildSeconds).toBe(0);
    expect(await pictureOf({})).toEqual(before);
  });

  it('weighs the text encoders apart', async () => {
    const both = await pictureOf({ loras: [lora('ink', 1)] });
    const denoiser = await pictureOf({ loras: [lora('ink', 1, 0)] });
    const text = await pictureOf({ loras: [lora('ink', 0, 1)] });
    const none = await pictureOf({});
    expect(new Set([both, denoiser, text, none].map((picture) => Buffer.from(picture).toString('hex'))).size).toBe(4);
  });

  it('takes several, in whatever order they are named', async () => {
    const one = await pictureOf({ loras: [lora('ink', 0.5), lora('clay', 0.5)] });
    expect(await pictureOf({ loras: [lora('clay', 0.5), lora('ink', 0.5)] })).toEqual(one);
  });

  it('takes none at weight 0', async () => {
    expect(await pictureOf({ loras: [lora('ink', 0)] })).toEqual(await pictureOf({}));
  });

  it.each([
    ['a red circle <lora:ink:0.8>', 'a red circle', [lora('ink', 0.8)]],
    ['<lora:ink>, a red circle', 'a red circle', [lora('ink', 1)]],
    ['a red circle, <lora:ink:0.8>, at dawn', 'a red circle, at dawn', [lora('ink', 0.8)]],
    ['a red circle<lora:ink:0.5:0.25> at dawn', 'a red circle at dawn', [lora('ink', 0.25, 0.5)]],
    ['a red circle <lora:ink:te=0.5:unet=0.25>', 'a red circle', [lora('ink', 0.25, 0.5)]],
    ['a red circle <lora:ink:0.5:unet=1>', 'a red circle', [lora('ink', 1, 0.5)]],
    ['a red circle <lora:ink:1><lora:more/shapes:-0.5>', 'a red circle', [lora('ink', 1), lora('more/shapes', -0.5)]],
  ])('reads "%s" as A1111 does', async (prompt, text, loras) => {
    const outcome = await outcomeOf(serving.client, { ...bare, prompt });
    const withList = await outcomeOf(serving.client, { ...bare, prompt: text, loras });
    expect(outcome.files).toEqual(withList.files);
    expect(metadataOf(outcome)).toMatchObject({ originalPrompt: prompt, loras: metadataOf(withList).loras });
  });

  it('does not let a LoRA that is taken out hide a word from the policy', async () => {
    expect((await errorOf({ prompt: 'an explicit ch<lora:ink:0.1>ild' }))?.reason).toBe('POLICY');
  });

  it('writes its LoRAs into the file, as it reads them', async () => {
    const { files } = await outcomeOf(serving.client, { ...quick, loras: [lora('ink', 0.5, 0.25)] });
    expect(await readParameters(files[0] ?? Buffer.alloc(0))).toContain('a red circle <lora:ink:0.25:0.5>');
  });

  it('names the nearest where there is none of that name', async () => {
    expect(await errorOf({ loras: [lora('inc')] })).toMatchObject({
      status: 'NOT_FOUND',
      reason: 'LORA_NOT_FOUND',
      message: expect.stringMatching(/^LoRA "inc" is not known; the nearest are ink, \w+, \w+$/) as string,
    });
  });

  it('answers bad lists all at once', async () => {
    const loras = [lora('ink', 3), lora('ink', 1, -2.5), lora('a'), lora('b'), lora('c')];
    expect((await errorOf({ loras }))?.violations.map(({ description }) => description)).toEqual([
      'loras has 5 entries, must have at most 4',
      'loras[0].weight 3 must be >= -2 and <= 2',
      'loras[1].name "ink" is there twice; add up its weights',
      'loras[1].text_encoder_weight -2.5 must be >= -2 and <= 2',
    ]);
    expect((await errorOf({ prompt: 'a boat <lora:ink:0.8:lbw=1,0,0,1>' }))?.violations[0]?.description).toBe(
      '<lora:ink:…> has "lbw", must have weights, te= or unet= alone; leave it out',
    );
    expect((await errorOf({ prompt: 'a boat <lora:ink:much>' }))?.violations[0]?.description).toBe(
      'loras[0].weight NaN must be >= -2 and <= 2',
    );
  });
});

describe('the folder', () => {
  it('is looked into again: new files, replaced ones, and files that went', async () => {
    const path = join(folder, 'later.safetensors');
    await cp(join(folder, 'ink.safetensors'), path);
    await lookAgain();
    const first = await pictureOf({ loras: [lora('later')] });
    await style(path, 4);
    await lookAgain();
    const replaced = await pictureOf({ loras: [lora('later')] });
    expect(replaced).not.toEqual(first);
    await rm(path);
    await lookAgain();
    expect((await errorOf({ loras: [lora('later')] }))?.reason).toBe('LORA_NOT_FOUND');
  });

  it('is shown by ListModels, with what the files say of themselves', async () => {
    const tensors = await readTensorFile(golden('attn.peft'));
    const tags = JSON.stringify({ '10_ink': { 'ink wash': 4, paper: 9 }, '2_more': { paper: 1, tree: 2 } });
    await writeTensorFile(join(folder, 'tagged.safetensors'), tensors, { ss_tag_frequency: tags });
    await lookAgain();
    const { loras = [] } = (await sdxl()) ?? {};
    expect(loras.map(({ name }) => name).sort()).toEqual([...STYLES, 'more/shapes', 'outside', 'tagged'].sort());
    expect(loras.find(({ name }) => name === 'tagged')).toMatchObject({
      base: 'SDXL',
      format: 'peft',
      rank: 4,
      modules: 234,
      trainedTags: ['paper', 'ink wash', 'tree'],
      problem: '',
    });
    await rm(join(folder, 'tagged.safetensors'));
  });
});

describe('a folder that holds anything', () => {
  let own: string;
  let registry: AddOnRegistry<'lora'>;
  beforeEach(async () => {
    own = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
    registry = new AddOnRegistry(loraKind, { folder: own, threadEntry: addOnThread });
  });
  afterEach(() => rm(own, { recursive: true }));
  const problems = async () => {
    await registry.refresh();
    return Object.fromEntries(registry.all.map(({ name, problem }) => [name, problem?.message]));
  };

  it('is listed through links to folders and files, each folder once, in capitals too', async () => {
    const elsewhere = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
    await copyFile(golden('attn.kohya'), join(elsewhere, 'far.safetensors'));
    await symlink(elsewhere, join(own, 'linked'));
    await symlink(own, join(elsewhere, 'back'));
    await symlink(golden('attn.peft'), join(own, 'file.safetensors'));
    await copyFile(golden('attn.peft'), join(own, 'LOUD.SAFETENSORS'));
    await symlink('/nowhere', join(own, 'dangling'));
    expect(await problems()).toEqual({ LOUD: undefined, file: undefined, 'linked/far': undefined });
    await rm(elsewhere, { recursive: true });
  });

  it('costs nothing but itself where it is no file, or a bomb', async () => {
    execFileSync('mkfifo', [join(own, 'pipe.safetensors')]);
    await copyFile(golden('attn.kohya'), join(own, 'good.safetensors'));
    await writeFile(join(own, 'nested.safetensors'), safetensorsBytes('['.repeat(30_000_000)));
    const modules = Array.from({ length: 30_000 }, (_, i) => `blocks.${i}.self_attn.q.lora_A.weight`);
    const entry = { dtype: 'F32', shape: [0], data_offsets: [0, 0] };
    await writeFile(
      join(own, 'many.safetensors'),
      safetensorsBytes(Object.fromEntries(modules.map((key) => [key, entry]))),
    );
    expect(await problems()).toEqual({
      good: undefined,
      many: 'LoRA "many" has more than 20000 modules, the limit',
      nested: 'LoRA "nested" has a header that is nested more than 8 deep',
      pipe: 'LoRA "pipe" is not a file',
    });
  });

  it('costs a minute at most where it cannot be read in time or memory', async () => {
    const lines: string[] = [];
    for (const [name, program] of [
      ['slow', `parentPort.on('message', () => undefined)`],
      [
        'hungry',
        `parentPort.on('message', () => { const all = []; for (;;) all.push(new Array(1e6).fill(all.length)); })`,
      ],
    ]) {
      const entry = join(own, `${name}.mjs`);
      await writeFile(
        entry,
        `import { parentPort } from 'node:worker_threads'; ${program}; parentPort.postMessage('ready');`,
      );
      const reader = new AddOnReader(pathToFileURL(entry));
      const reading = await reader.read('lora', 'x.safetensors');
      lines.push('problem' in reading ? `${name}: ${reading.problem.message} ${reading.isFinal}` : (name ?? ''));
      await reader.close();
    }
    expect(lines).toEqual([
      'slow: the header of x.safetensors cannot be read: it takes longer than 5000 ms false',
      expect.stringMatching(/^hungry: the header of x\.safetensors cannot be read: .*memory.* false$/) as string,
    ]);
  });

  it('does not hold up the process while a file is read', async () => {
    await writeFile(join(own, 'long.safetensors'), safetensorsBytes(`{"a":"${'x'.repeat(31_000_000)}"}`));
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 5);
    const begun = performance.now();
    await registry.refresh();
    clearInterval(timer);
    // Read in this thread, it would be one pause from end to end.
    expect(longest).toBeLessThan((performance.now() - begun) / 2);
  });

  it('is reported where it is missing', async () => {
    const missing = new AddOnRegistry(loraKind, { folder: join(own, 'nowhere') });
    expect(await missing.folderProblem()).toBe(`${join(own, 'nowhere')} cannot be read (ENOENT)`);
    expect(await registry.folderProblem()).toBeUndefined();
    const lines: string[] = [];
    const log = pino({ level: 'error' }, { write: (line: string) => lines.push(line) });
    const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0', LORA_DIR: join(own, 'nowhere') });
    const server = await createServer({ config, log, engines: [] });
    await server.close();
    expect(lines.join('')).toContain('nowhere cannot be read (ENOENT); there are no LoRAs until it can be');
  });
});

/** A folder is looked into once a second at most. */
async function lookAgain(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 1100));
}

describe('a LoRA file that cannot be used', () => {
  const unet = 'lora_unet_down_blocks_1_attentions_0_proj_in';
  const zeros = (shape: readonly number[], bits = 0) => ({
    dtype: 'F16' as const,
    shape,
    bytes: Buffer.from(new Uint16Array(shape.reduce((a, b) => a * b, 1)).fill(bits).buffer),
  });

  it.each([
    [
      'cut off',
      'CHECKPOINT_INVALID',
      /is truncated: tensor/,
      async (path: string) => {
        await copyFile(golden('attn.kohya'), path);
        await truncate(path, 200_000);
      },
    ],
    [
      'of another base',
      'MODEL_UNSUPPORTED',
      /^LoRA "bad" is for WAN 2\.1; the model is SDXL$/,
      (path: string) =>
        writeTensorFile(
          path,
          new Map([
            ['diffusion_model.blocks.0.self_attn.q.lora_A.weight', zeros([4, 64])],
            ['diffusion_model.blocks.0.self_attn.q.lora_B.weight', zeros([64, 4])],
          ]),
        ),
    ],
    [
      'with ranks that differ',
      'CHECKPOINT_INVALID',
      /proj_in\.weight: its two factors have the ranks 8 and 4/,
      (path: string) => changed(path, (tensors) => tensors.set(`${unet}.lora_down.weight`, zeros([8, 64]))),
    ],
    [
      'with a module twice',
      'CHECKPOINT_INVALID',
      /unet\.down_blocks\.1\.attentions\.0\.proj_in\.weight is there twice; its second module is "unet.down_blocks.1.attentions.0.proj_in"/,
      (path: string) =>
        changed(path, (tensors) => {
          for (const part of ['lora_up', 'lora_down']) {
            const factor = tensors.get(`${unet}.${part}.weight`) ?? zeros([1]);
            tensors.set(`unet.down_blocks.1.attentions.0.proj_in.${part}.weight`, factor);
          }
        }),
    ],
    [
      'with a NaN',
      'CHECKPOINT_INVALID',
      /has a NaN or an infinity in lora_unet_down_blocks_1_attentions_0_proj_in\.lora_up\.weight$/,
      (path: string) =>
        changed(path, (tensors) => {
          const { shape = [] } = tensors.get(`${unet}.lora_up.weight`) ?? {};
          tensors.set(`${unet}.lora_up.weight`, zeros(shape, 0x7e00));
        }),
    ],
    [
      'that is no LoRA',
      'MODEL_UNSUPPORTED',
      /has no LoRA keys; it begins with "foo"$/,
      (path: string) =>
        writeFile(path, safetensorsBytes({ foo: { dtype: 'F16', shape: [1], data_offsets: [0, 2] } }, Buffer.alloc(2))),
    ],
  ] as const)('%s: one clear error, and the server goes on', async (_, reason, message, make) => {
    const path = join(folder, 'bad.safetensors');
    await make(path);
    await lookAgain();
    const error = await errorOf({ loras: [lora('bad')] });
    expect([error?.reason, error?.status]).toEqual([reason, 'FAILED_PRECONDITION']);
    expect(error?.message).toMatch(message);
    expect(error?.message).toContain('LoRA "bad"');
    expect(error?.message).not.toContain(folder);
    expect(await errorOf({ loras: [lora('ink')] })).toBeUndefined();
    expect(serving.engine.restarts).toBe(0);
    await rm(path);
  });

  async function changed(path: string, change: (tensors: Awaited<ReturnType<typeof readTensorFile>>) => void) {
    const tensors = await readTensorFile(golden('attn.kohya'));
    change(tensors);
    await writeTensorFile(path, tensors);
  }
});

describe('WAN', () => {
  it('takes LoRAs of its own, and refuses those of SDXL', async () => {
    const own = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
    const module = 'diffusion_model.blocks.0.self_attn.q';
    const dim = await wanWidth();
    const factor = (shape: readonly number[], values: Float32Array) => ({
      dtype: 'F32',
      shape,
      bytes: Buffer.from(values.buffer),
    });
    await writeTensorFile(
      join(own, 'motion.safetensors'),
      new Map([
        [`${module}.lora_A.weight`, factor([2, dim], hashTensor('down', [2, dim]))],
        [`${module}.lora_B.weight`, factor([dim, 2], hashTensor('up', [dim, 2]))],
      ]),
    );
    await copyFile(golden('attn.kohya'), join(own, 'ink.safetensors'));
    const other = await serve({ WAN_PATH: inject('tinyWan'), LORA_DIR: own });
    try {
      const request = { ...bare, jobType: JobType.JOB_TYPE_IMAGE_FAST };
      const plain = await outcomeOf(other.client, request);
      const moved = await outcomeOf(other.client, { ...request, prompt: `${request.prompt} <lora:motion:1.5>` });
      expect(metadataOf(moved).loras).toEqual([{ name: 'motion', weight: 1.5, textEncoderWeight: 1.5 }]);
      expect(moved.files).not.toEqual(plain.files);
      const { error } = await outcomeOf(other.client, { ...request, loras: [lora('ink')] });
      expect(error?.message).toBe('LoRA "ink" is for SDXL; the model is WAN 2.1');
    } finally {
      await other.stop();
      await rm(own, { recursive: true });
    }
  });
});

/** Of the tiny WAN's blocks. */
async function wanWidth(): Promise<number> {
  const { transformer } = await readWanConfig(inject('tinyWan'));
  return transformer.num_attention_heads * transformer.attention_head_dim;
}

describe('many jobs over few variants', () => {
  /** Wanted by 8 jobs each, in an order that is random and always the same. */
  const order = (() => {
    let state = 12345;
    const next = () => {
      state = (state * 1103515245 + 12345) % 2 ** 31;
      return state;
    };
    return Array.from({ length: 40 }, (_, i) => ({ name: STYLES[i % 5] ?? 'ink', at: next() }))
      .sort((a, b) => a.at - b.at)
      .map(({ name }) => name);
  })();

  it('builds five variants in room for two at most ten times for 40 jobs, and every picture is what its LoRA gives alone', async () => {
    const alone = new Map<string, Uint8Array>();
    for (const name of STYLES) alone.set(name, await pictureOf({ loras: [lora(name)], seed: 11n }));
    // Nothing is built before: the two that are belong to other weights.
    for (const weight of [0.11, 0.12]) await pictureOf({ loras: [lora('ink', weight)] });
    const before = (await sdxl())?.variantBuilds ?? 0;
    const outcomes = await Promise.all(
      order.map((name) => outcomeOf(serving.client, { ...bare, loras: [lora(name)], seed: 11n })),
    );
    const builds = ((await sdxl())?.variantBuilds ?? 0) - before;
    expect(builds).toBeLessThanOrEqual(10);
    expect(builds).toBeGreaterThanOrEqual(5);
    expect((await sdxl())?.variants).toBe(2);
    for (const [i, { files }] of outcomes.entries()) {
      const picture = new Uint8Array(await sharp(files[0]).raw().toBuffer());
      expect(picture, `job ${i}`).toEqual(alone.get(order[i] ?? ''));
    }
  });

  it('passes nobody over for longer than it may', async () => {
    const impatient = await serve({
      SDXL_PATH: inject('wholeSdxl'),
      LORA_DIR: folder,
      LORA_VARIANTS: '1',
      LORA_PATIENCE_MS: '0',
    });
    try {
      const started: string[] = [];
      const names = ['ink', 'clay', 'ink', 'clay'];
      await Promise.all(
        names.map((name, i) =>
          // Of another size each, so that none takes another along.
          outcomeOf(
            impatient.client,
            { ...bare, loras: [lora(name)], height: 64 + 8 * i },
            { onEvent: ({ event }) => event?.$case === 'started' && started.push(`${name} ${i}`) },
          ),
        ),
      );
      expect(started).toEqual(names.map((name, i) => `${name} ${i}`));
    } finally {
      await impatient.stop();
    }
  });
});
