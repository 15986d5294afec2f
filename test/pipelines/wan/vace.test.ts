import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { planarFrames } from '../../../src/pipelines/common/frame-form.js';
import { imageFromRgb, rgbFromImage } from '../../../src/pipelines/common/rgb-image.js';
import type { KnownImages, PipelineEvent } from '../../../src/pipelines/pipeline.js';
import { openWanCheckpoint } from '../../../src/pipelines/wan/checkpoint/checkpoint.js';
import { inspectWan } from '../../../src/pipelines/wan/inspect.js';
import { createWanPipeline, type WanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { rebuildOriginal } from '../../conformance/wan-cases.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { gradient } from '../../support/image.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';
import { goldens, sharedTinyWan, tinyVideo } from '../../support/tiny-wan.js';

const request = tinyVideo;
const size = { width: request.width, height: request.height };

let path: string;
let pipeline: WanPipeline;
beforeAll(async () => {
  const shared = await sharedTinyWan('BF16', 'wan-vace-tiny');
  path = shared.path;
  pipeline = await createWanPipeline({ path, backend: cpuBackend });
  return async () => {
    await pipeline.dispose();
    await shared.remove();
  };
});

async function frames(known?: KnownImages, more: object = {}): Promise<readonly Uint8Array[]> {
  const made: Uint8Array[] = [];
  const video = { frames: 9, shift: 5, ...more, known };
  for await (const event of pipeline.generate([
    { request: { ...request, video }, signal: new AbortController().signal },
  ]))
    if (event.kind === 'frames') made.push(...event.frames);
  return made;
}

describe('VACE', () => {
  it('is recognised by its configuration', async () => {
    const { variant, info } = await inspectWan({ path });
    expect(variant).toBe('vace');
    expect(info.frames).toEqual({
      method: 'vace',
      takes: ['start', 'end', 'look'],
      needs: [],
      takesControlVideo: true,
    });
  });

  it('cuts off the latents of the look image: the video has the requested frames', async () => {
    const look = gradient(size);
    const [like, free] = [await frames({ method: 'vace', look, strength: 1 }), await frames()];
    expect([like.length, free.length]).toEqual([9, 9]);
    expect(like[0]).not.toEqual(free[0]);
  });

  it('makes the same video from text alone, whatever it made before', async () => {
    const other = await createWanPipeline({ path, backend: cpuBackend });
    try {
      const made: Uint8Array[] = [];
      for await (const event of other.generate([{ request, signal: new AbortController().signal }]))
        if (event.kind === 'frames') made.push(...event.frames);
      await frames({ method: 'vace', start: gradient(size), strength: 1 });
      expect(await frames()).toEqual(made);
      expect(await frames()).toEqual(made);
    } finally {
      await other.dispose();
    }
  });

  it('supports held frames like a text-to-video model: the first frame is then the reference', async () => {
    const start = gradient(size);
    const [[held], [own]] = [
      await frames({ method: 'latent_hold', start, strength: 1 }),
      await frames({ method: 'vace', start, strength: 1 }),
    ];
    const { networks } = pipeline;
    const latents = await networks.autoencoder.encodeLatents([imageFromRgb(start, size)], size);
    const { value } = await networks.autoencoder.decodeChunks(planarFrames, latents, { ...size, frames: 1 }).next();
    const nearest = rgbFromImage(value?.frames[0] ?? new Float32Array(), size);
    const distance = (frame: Uint8Array = new Uint8Array()) =>
      frame.reduce((sum, x, i) => sum + Math.abs(x - (nearest[i] ?? 0)), 0) / frame.length;
    expect(distance(held)).toBeLessThan(1);
    expect(distance(own)).toBeGreaterThan(10);
  });

  it('stops between two runs of the encoder when cancelled while it encodes known frames', async () => {
    const abort = new AbortController();
    const seen: PipelineEvent[] = [];
    const known: KnownImages = { method: 'vace', start: gradient(size), strength: 1 };
    const job = { request: { ...request, video: { frames: 81, shift: 5, known } }, signal: abort.signal };
    for await (const event of pipeline.generate([job])) {
      seen.push(event);
      // Told of the prompt; then 42 runs of the encoder are to come.
      if (event.kind === 'prompt') abort.abort();
    }
    expect(seen.slice(-2).map(({ kind }) => kind)).toEqual(['prompt', 'aborted']);
  });

  it('reuses the residual of its blocks including the hints', async () => {
    const call = {
      latents: hashTensor('noise', [1, 16, 2, 4, 6]),
      size: { frames: 2, height: 4, width: 6 },
      timestep: 321,
      texts: [hashTensor('a', [7, 32])],
      condition: { kind: 'vace', control: hashTensor('control', [96, 2, 4, 6]), scale: 0.5 },
    } as const;
    const { flow, kept } = await pipeline.networks.denoiser.predictAndKeep(call);
    const same = await pipeline.networks.denoiser.predictFrom(kept, call);
    expect(Math.max(...same.map((x, i) => Math.abs(x - (flow[i] ?? 9))))).toBeLessThan(1e-6);
  });
});

describe('VACE in the original layout', () => {
  const original = async () => rebuildOriginal(goldens('wan-vace-other'), await tempFolder());

  it('is recognised by its tensor names; config.json names the layers of its hints', async () => {
    const { config } = await openWanCheckpoint({ path: await original() });
    expect(config.transformer).toMatchObject({
      _class_name: 'WanVACETransformer3DModel',
      vace_layers: [0, 1, 3],
      vace_in_channels: 96,
      num_layers: 4,
    });
  });

  it.each([
    [
      { num_heads: 3 },
      /has 3 VACE blocks for 4 layers, which follow no known rule; put its config\.json with vace_layers beside it$/,
    ],
    [{ num_heads: 3, vace_layers: [0, 2] }, /has 3 VACE blocks, the vace_layers of its config\.json are 2$/],
    [
      { num_heads: 3, vace_layers: [0, 3, 1] },
      /vace_layers 0, 3, 1 must begin with 0, ascend and be below the number of layers, 4$/,
    ],
  ])('is refused with %o', async (config, message) => {
    const folder = await original();
    await writeFile(join(folder, 'config.json'), JSON.stringify(config));
    await expect(openWanCheckpoint({ path: folder })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });

  it('does not need the layers where its blocks are spread evenly, as in every published model', async () => {
    const folder = await original();
    const file = join(folder, 'diffusion_pytorch_model.safetensors');
    const tensors = await readTensorFile(file);
    for (const name of [...tensors.keys()]) if (name.startsWith('vace_blocks.2.')) tensors.delete(name);
    await writeTensorFile(file, tensors);
    await writeFile(join(folder, 'config.json'), JSON.stringify({ num_heads: 3 }));
    const { config } = await openWanCheckpoint({ path: folder });
    expect(config.transformer.vace_layers).toEqual([0, 2]);
  });
});
