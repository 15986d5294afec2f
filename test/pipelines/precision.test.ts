import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it, vi } from 'vitest';
import type { Dialect } from '../../src/graph/dialect.js';
import type { Network } from '../../src/pipelines/common/build-networks.js';
import { planarFrames } from '../../src/pipelines/common/frame-form.js';
import { NetworkOpener } from '../../src/pipelines/common/network-opener.js';
import { atStep } from '../../src/pipelines/common/not-finite.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { loadSdxlNetworks } from '../../src/pipelines/sdxl/networks.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { loadWanNetworks } from '../../src/pipelines/wan/networks.js';
import { createWanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { OrtError } from '../../src/runtime/native/ort-error.js';
import type { SessionOptions } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { cpuBackend, cpuBackendOf } from '../support/cpu-backend.js';
import { tempFolder } from '../support/temp-folder.js';
import { readTensorFile, type StoredTensor, writeTensorFile } from '../support/tensor-file.js';
import { tinyVideo } from '../support/tiny-wan.js';

const f32 = { attention: 'fused', compute: 'f32' } as const satisfies Dialect;
const f16 = { attention: 'fused', compute: 'f16', emulated: true } as const satisfies Dialect;
const bf16 = { attention: 'fused', compute: 'bf16', emulated: true } as const satisfies Dialect;
/** As on CUDA, where every network is tried in both halves. */
const ladder = cpuBackendOf(f16, bf16, f32);

/** Rewrites the F32 tensors of a model's files. */
async function change(folder: string, values: (tensor: StoredTensor, name: string) => Float32Array): Promise<string> {
  for (const file of (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.safetensors'))) {
    const path = join(folder, file);
    const tensors = await readTensorFile(path);
    for (const [name, tensor] of tensors) {
      tensors.set(name, { ...tensor, bytes: Buffer.from(values(tensor, name).buffer) });
    }
    await writeTensorFile(path, tensors);
  }
  return folder;
}

function floatsOf({ bytes }: StoredTensor): Float32Array {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

/** Matrices whose largest element just fits float16: their products do not. */
function large(tensor: StoredTensor): Float32Array {
  const floats = floatsOf(tensor);
  if (tensor.shape.length < 2) return floats;
  const most = floats.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return floats.map((value) => (value / most) * 60_000);
}

async function openAll(networks: object, opener: NetworkOpener): Promise<void> {
  for (const network of Object.values(networks) as (Network | undefined)[]) {
    if (network !== undefined) await (await opener.open(network)).release();
  }
}

describe('a network that float16 is too narrow for', () => {
  const wide = cpuBackendOf(f16, f32);

  it('is opened in float32, whichever of SDXL it is', async () => {
    const folder = await change(await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'), large);
    const networks = await buildSdxlNetworks(await openSdxlCheckpoint({ path: folder }), wide.dialectsOf);
    const opener = new NetworkOpener(wide, Object.values(networks));
    expect(opener.precisions).toHaveLength(6);
    expect(opener.precisions).toContainEqual({ network: 'unet', precision: 'fp16' });
    await openAll(networks, opener);
    for (const { network, precision, reason } of opener.precisions) {
      const expected = [network, 'fp32', `not fp16: ${network} computed numbers that are not finite`];
      expect([network, precision, reason]).toEqual(expected);
    }
  });

  it('is opened in float32, whichever of WAN it is', async () => {
    const folder = await change(await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-i2v-tiny', 'F32'), large);
    const networks = await buildWanNetworks(await openWanCheckpoint({ path: folder }), wide.dialectsOf);
    const opener = new NetworkOpener(wide, Object.values(networks));
    await openAll(networks, opener);
    // What stands around the blocks is float32 in every dialect.
    const narrow = opener.precisions.filter(({ precision }) => precision === 'fp16').map(({ network }) => network);
    expect(narrow).toEqual(['transformer_reusing', 'transformer_time']);
    expect(opener.precisions).toHaveLength(9);
  });
});

describe('the ladder', () => {
  /** Opens a decoder whose sessions get these options. */
  async function openingWith(optionsOf: () => SessionOptions) {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny');
    const networks = await buildSdxlNetworks(await openSdxlCheckpoint({ path }), ladder.dialectsOf);
    const opener = new NetworkOpener(ladder, [networks.vae_decoder]);
    return { opening: opener.openAlike([networks.vae_decoder], optionsOf), opener };
  }

  it('goes to bfloat16 where a weight is beyond float16, and names the weight', async () => {
    const folder = await change(
      await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'),
      (tensor, name) => (name === 'conv_in.bias' ? floatsOf(tensor).fill(65_520, 0, 1) : floatsOf(tensor)),
    );
    const networks = await loadSdxlNetworks({ path: folder, backend: ladder });
    const reason = "not fp16: conv_in.bias [32] has values beyond float16's 65504";
    expect(networks.info.precisions).toContainEqual({ network: 'unet', precision: 'bf16', reason });
    expect(networks.info.precisions).toContainEqual({ network: 'text_encoder', precision: 'fp16' });
    await networks.release();
  });

  it('does not help a weight that is no number: the network is refused, and the weight named', async () => {
    const folder = await change(
      await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'),
      (tensor, name) => (name === 'decoder.conv_in.bias' ? floatsOf(tensor).fill(Number.NaN, 0, 1) : floatsOf(tensor)),
    );
    const networks = await buildSdxlNetworks(await openSdxlCheckpoint({ path: folder }), ladder.dialectsOf);
    await expect(new NetworkOpener(ladder, []).open(networks.vae_decoder)).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(
        /^decoder\.conv_in\.bias \[\d+\] has values that are not finite, and so has all .*; the file is damaged, get it again$/,
      ) as string,
    });
  });

  it('is climbed once: a network that is opened again begins where it ended, and is not tried out again', async () => {
    const folder = await change(await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'), large);
    const { unet } = await buildSdxlNetworks(await openSdxlCheckpoint({ path: folder }), () => [f16, f32]);
    const opener = new NetworkOpener({ ...cpuBackend, runtime: { name: 'binding' } }, [unet]);
    let count = 0;
    const create = InferenceSession.create.bind(InferenceSession);
    const counted = vi.spyOn(InferenceSession, 'create').mockImplementation(((model: Uint8Array, options: object) => {
      count += 1;
      return create(model, options);
    }) as typeof InferenceSession.create);
    const open = async () => {
      count = 0;
      await (await opener.open(unet)).release();
      return count;
    };
    expect(await open()).toBe(2);
    const { precisions } = opener;
    expect(await open()).toBe(1);
    expect(opener.precisions).toEqual(precisions);
    expect(precisions).toMatchObject([{ network: 'unet', precision: 'fp32' }]);
    counted.mockRestore();
  });

  it.each([
    ['memory runs out: a wider type would take more', 'Failed to allocate memory for requested buffer of size 4194304'],
    ['the device fails: a wider type fails as well', 'CUDA failure 700: an illegal memory access was encountered'],
    ['a file is gone', 'ENOENT: no such file or directory'],
  ])('is not climbed where %s', async (_, message) => {
    const failure = new Error(message);
    const { opening, opener } = await openingWith(() => {
      throw failure;
    });
    await expect(opening).rejects.toBe(failure);
    expect(opener.precisions).toEqual([{ network: 'vae_decoder', precision: 'fp16' }]);
  });

  it.each([
    new OrtError('NOT_IMPLEMENTED', 'Could not find an implementation for Conv(22) node'),
    new Error("Could not find an implementation for InstanceNormalization(6) node with name 'n'"),
    new Error("Type Error: Type 'tensor(bfloat16)' of input parameter (x) of operator (Resize) in node () is invalid."),
    new Error('program requires f16 but the device does not support it'),
  ])('is climbed where the provider lacks an op: %s', async (refusal) => {
    let tries = 0;
    const { opening, opener } = await openingWith(() => {
      tries += 1;
      if (tries === 1) throw refusal;
      return {};
    });
    for (const session of await opening) await session.release();
    expect(opener.precisions).toEqual([
      { network: 'vae_decoder', precision: 'bf16', reason: `not fp16: ${refusal.message}` },
    ]);
  });

  it('takes the largest number of float16', async () => {
    const folder = await change(
      await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'),
      (tensor, name) => (name === 'conv_in.bias' ? floatsOf(tensor).fill(65_519, 0, 1) : floatsOf(tensor)),
    );
    const networks = await buildSdxlNetworks(await openSdxlCheckpoint({ path: folder }), ladder.dialectsOf);
    const opener = new NetworkOpener(ladder, [networks.vae_decoder]);
    await (await opener.open(networks.vae_decoder)).release();
    expect(opener.precisions).toEqual([{ network: 'vae_decoder', precision: 'fp16' }]);
  });
});

describe('a number that is not finite', () => {
  const half = cpuBackendOf(f16, f32);

  it('ends a job of SDXL with the network and the step', async () => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny');
    const pipeline = await createSdxlPipeline({ path, backend: cpuBackend });
    // Guidance of this scale takes the latents beyond float32.
    const request = {
      ...{ prompt: 'a blue star', negativePrompt: '', width: 64, height: 64, steps: 4 },
      ...{ guidanceScale: 1e38, scheduler: 'euler', seeds: [1] },
    };
    const run = async () => {
      for await (const _ of pipeline.generate([{ request, signal: new AbortController().signal }]));
    };
    await expect(run()).rejects.toMatchObject({
      reason: 'NOT_FINITE',
      message:
        'unet computed numbers that are not finite in step 2 of 4; try another seed or a smaller guidance scale, and check the checkpoint and its LoRAs',
    });
    await pipeline.dispose();
  });

  it('is a reason for PRECISION=fp32 where the network computes in a half', async () => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny');
    const networks = await buildSdxlNetworks(await openSdxlCheckpoint({ path }), half.dialectsOf);
    const session = await new NetworkOpener(half, []).open(networks.vae_decoder);
    const latents = { data: new Float32Array(4 * 64).fill(1e30), shape: [1, 4, 8, 8] };
    await expect(atStep(1, 4, () => session.run({ latents }))).rejects.toMatchObject({
      reason: 'NOT_FINITE',
      message: expect.stringMatching(/ in step 2 of 4; .*, or set PRECISION=fp32$/) as string,
    });
    await session.release();
  });

  it('ends a job that has no step with what to do', async () => {
    const path = await change(
      await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'),
      (tensor, name) => (name === 'decoder.conv_in.bias' ? floatsOf(tensor).fill(Number.NaN) : floatsOf(tensor)),
    );
    const { autoencoder, release } = await loaded(path, cpuBackend);
    await expect(autoencoder.decode(new Float32Array(4 * 64), { width: 64, height: 64 })).rejects.toMatchObject({
      reason: 'NOT_FINITE',
      message: 'vae_decoder computed numbers that are not finite; check the checkpoint and its LoRAs',
    });
    await release();
  });

  it('ends a job of WAN with the network and the step', async () => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-tiny', 'BF16');
    const pipeline = await createWanPipeline({ path, backend: cpuBackend });
    const job = {
      request: { ...tinyVideo, guidanceScale: Number.POSITIVE_INFINITY },
      signal: new AbortController().signal,
    };
    const run = async () => {
      for await (const _ of pipeline.generate([job]));
    };
    await expect(run()).rejects.toMatchObject({
      reason: 'NOT_FINITE',
      message: expect.stringMatching(/^transformer computed numbers that are not finite in step 2 of 4; /),
    });
    await pipeline.dispose();
  });

  it('has an image decoded once more in float32', async () => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny');
    const size = { width: 64, height: 64 };
    const latents = hashTensor('latents', [1, 4, 8, 8]).map((value) => value * 1e6);
    const decode = async (backend: typeof cpuBackend) => {
      const { autoencoder, info, release } = await loaded(path, backend);
      const image = await autoencoder.decode(latents, size);
      await release();
      return { image, precision: info().precisions?.find(({ network }) => network === 'vae_decoder') };
    };
    const exact = await decode(cpuBackend);
    const again = await decode(half);
    expect(again.image).toEqual(exact.image);
    expect(again.precision).toEqual({
      network: 'vae_decoder',
      precision: 'fp16',
      reason: 'a result was not finite and was computed once more in fp32',
    });
  });

  it('does not have an image decoded once more by a decoder that is opened in float32 already', async () => {
    const path = await change(
      await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32'),
      (tensor, name) => (name === 'decoder.conv_in.bias' ? floatsOf(tensor).fill(1e38) : floatsOf(tensor)),
    );
    const { autoencoder, info, release } = await loaded(path, half);
    const size = { width: 64, height: 64 };
    const latents = new Float32Array(4 * 64).fill(Number.NaN);
    await expect(autoencoder.decode(latents, size)).rejects.toMatchObject({ reason: 'NOT_FINITE' });
    expect(info().precisions?.find(({ network }) => network === 'vae_decoder')).toEqual({
      network: 'vae_decoder',
      precision: 'fp32',
      reason: expect.stringMatching(/^not fp16: decoder\.conv_in\.bias/) as string,
    });
    await release();
  });

  it('has a video decoded once more in float32, and gives each frame once', async () => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-tiny', 'BF16');
    const size = { width: 32, height: 32, frames: 13 };
    const latents = hashTensor('latents', [16, 4, 4, 4]);
    // The third latent overflows: two chunks have been given by then.
    const plane = latents.map((value, i) => (Math.floor(i / 16) % 4 === 2 ? value * 1e6 : value));
    const decode = async (backend: typeof cpuBackend) => {
      const networks = await loadWanNetworks({ path, backend });
      const frames: Float32Array[] = [];
      for await (const { frames: chunk } of networks.autoencoder.decodeChunks(planarFrames, plane, size))
        frames.push(...chunk);
      await networks.release();
      return frames;
    };
    const [exact, again] = [await decode(cpuBackend), await decode(half)];
    expect(again).toHaveLength(13);
    expect(again.slice(5)).toEqual(exact.slice(5));
    expect(again[0]).not.toEqual(exact[0]);
  });
});

async function loaded(path: string, backend: typeof cpuBackend) {
  const networks = await loadSdxlNetworks({ path, backend });
  return { autoencoder: networks.autoencoder, info: () => networks.info, release: () => networks.release() };
}
