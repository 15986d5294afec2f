import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readImageEncoderConfig } from '../pipelines/common/image-encoder-config.js';
import { readSdxlConfig } from '../pipelines/sdxl/checkpoint/read-config.js';
import type { ImageProjectionConfig } from '../pipelines/sdxl/model/config.js';
import { crossAttentions, IMAGE_KEYS } from '../pipelines/sdxl/model/ip-adapter.js';
import { planSdxlWeights } from '../pipelines/sdxl/weights.js';
import { makeFolder } from '../std/make-folder.js';
import type { FloatType } from '../weights/safetensors.js';
import { copySdxlConfigs } from './sdxl.js';
import type { SyntheticImageEncoderSize, SyntheticIpAdapterSize } from './sizes.js';
import { writeHashSafetensors } from './write-safetensors.js';

/** ViT-H/14 is https://huggingface.co/h94/IP-Adapter/blob/main/models/image_encoder/config.json */
const ENCODERS: Readonly<Record<SyntheticImageEncoderSize, object>> = {
  'clip-image-encoder-tiny': {
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 3,
    num_attention_heads: 2,
    image_size: 28,
    patch_size: 7,
    projection_dim: 24,
  },
  'clip-image-encoder': {
    hidden_size: 1280,
    intermediate_size: 5120,
    num_hidden_layers: 32,
    num_attention_heads: 16,
    image_size: 224,
    patch_size: 14,
    projection_dim: 1024,
  },
};

const base = { kind: 'base', tokens: 4 } as const;

/** The released ones: https://huggingface.co/h94/IP-Adapter/tree/main/sdxl_models */
const ADAPTERS: Readonly<
  Record<
    SyntheticIpAdapterSize,
    {
      readonly sdxl: 'sdxl-tiny' | 'sdxl-base';
      readonly encoder: SyntheticImageEncoderSize;
      readonly projection: ImageProjectionConfig;
    }
  >
> = {
  'sdxl-ip-adapter-tiny': { sdxl: 'sdxl-tiny', encoder: 'clip-image-encoder-tiny', projection: base },
  'sdxl-ip-adapter': { sdxl: 'sdxl-base', encoder: 'clip-image-encoder', projection: base },
  'sdxl-ip-adapter-plus-tiny': {
    sdxl: 'sdxl-tiny',
    encoder: 'clip-image-encoder-tiny',
    projection: { kind: 'plus', tokens: 5, width: 48, layers: 4, heads: 2, inner: 192 },
  },
  'sdxl-ip-adapter-plus': {
    sdxl: 'sdxl-base',
    encoder: 'clip-image-encoder',
    projection: { kind: 'plus', tokens: 16, width: 1280, layers: 4, heads: 20, inner: 5120 },
  },
};

/** Writes CLIP's image encoder with made-up weights: a folder as transformers saves it. */
export async function writeSyntheticImageEncoder(
  folder: string,
  size: SyntheticImageEncoderSize,
  dtype: FloatType = 'F16',
): Promise<void> {
  await writeEncoderConfig(folder, size);
  const config = { encoder: await readImageEncoderConfig(folder, 'CLIP image encoder'), projection: base };
  const { image_encoder } = await plan('sdxl-tiny', config);
  const tensors = image_encoder.map(
    ([name, shape]) => [name.startsWith('visual_projection.') ? name : `vision_model.${name}`, shape] as const,
  );
  await writeHashSafetensors(join(folder, 'model.safetensors'), { dtype, hashPrefix: 'image_encoder.', tensors });
}

/** Writes an IP-Adapter of made-up weights in the published names, for the SDXL and the image encoder of the same size. */
export async function writeSyntheticIpAdapter(
  path: string,
  size: SyntheticIpAdapterSize,
  dtype: FloatType = 'F16',
): Promise<void> {
  const { sdxl, encoder: encoderSize, projection } = ADAPTERS[size];
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-synthetic-'));
  try {
    await writeEncoderConfig(folder, encoderSize);
    const encoder = await readImageEncoderConfig(folder, 'CLIP image encoder');
    const { image_projection, unet, attentions } = await plan(sdxl, { encoder, projection });
    const numbers = new Map<string, string>(
      attentions.flatMap(({ path: attention, number }) =>
        (['k', 'v'] as const).map(
          (part) => [`${attention}.${IMAGE_KEYS[part]}.weight`, `ip_adapter.${number}.to_${part}_ip.weight`] as const,
        ),
      ),
    );
    const tensors = [
      ...image_projection.map(([name, shape]) => [`image_proj.${name}`, shape] as const),
      ...unet.flatMap(([name, shape]) => {
        const published = numbers.get(name);
        return published === undefined ? [] : [[published, shape] as const];
      }),
    ];
    await writeHashSafetensors(path, { dtype, hashPrefix: `${projection.kind}.`, tensors });
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function writeEncoderConfig(folder: string, size: SyntheticImageEncoderSize): Promise<void> {
  await makeFolder(folder);
  const config = { architectures: ['CLIPVisionModelWithProjection'], model_type: 'clip_vision_model' };
  const values = { ...config, hidden_act: 'gelu', layer_norm_eps: 1e-5, ...ENCODERS[size] };
  await writeFile(join(folder, 'config.json'), JSON.stringify(values, null, 2));
}

async function plan(
  sdxl: 'sdxl-tiny' | 'sdxl-base',
  imagePrompt: NonNullable<Parameters<typeof planSdxlWeights>[0]['imagePrompt']>,
) {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-synthetic-'));
  try {
    await copySdxlConfigs(folder, sdxl);
    const config = { ...(await readSdxlConfig(folder)), imagePrompt };
    return { ...planSdxlWeights(config), attentions: crossAttentions(config.unet) };
  } finally {
    await rm(folder, { recursive: true });
  }
}
