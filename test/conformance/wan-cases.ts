import { cp, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { clipPixels } from '../../src/pipelines/common/clip-pixels.js';
import { planarFrames } from '../../src/pipelines/common/frame-form.js';
import { partsOf } from '../../src/pipelines/frame-parts.js';
import type { DecodedChunk } from '../../src/pipelines/wan/autoencoder.js';
import type { TransformerCall } from '../../src/pipelines/wan/denoiser.js';
import { normalizedLatents, videoOfFrames } from '../../src/pipelines/wan/model/latents.js';
import type { WanNetworks } from '../../src/pipelines/wan/networks.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';
import { assertFloatType } from '../support/float-type.js';
import type { Expected, ManifestEntry } from './golden-folder.js';
import { type Case, type CaseResult, judge, skipped } from './report.js';
import { type WanTextCases, wanTextCases, wanTextKinds } from './wan-text-cases.js';
import { type WanVideoCase, wanVideoCases } from './wan-video-cases.js';

export interface WanCases extends WanTextCases {
  readonly transformer?: { readonly timesteps: readonly number[]; readonly clean?: number } | VaceTransformerCases;
  readonly image_encoder?: readonly ImageCase[];
  readonly vae?: readonly VaeCase[];
  readonly video?: readonly WanVideoCase[];
}

/** One run for each scale of the control, which is `transformer.control`. */
interface VaceTransformerCases {
  readonly timestep: number;
  readonly scales: readonly number[];
}

/** Names of a picture, of what the image encoder takes, and of what it says. */
interface ImageCase {
  readonly picture: string;
  readonly pixels: string;
  readonly key: string;
}

/** Names of a video, its encoded mean, and of latents and what they decode to. */
interface VaeCase {
  readonly frames: number;
  readonly video: string;
  readonly enc_mean: string;
  readonly z: string;
  readonly dec: string;
}

const KNOWN = new Set<string>(['transformer', 'image_encoder', 'vae', 'video', ...wanTextKinds]);

/** Every case of a `cases.json` beside a WAN model's configurations. */
export function wanCases(cases: WanCases, expected: Expected, networks: WanNetworks): readonly Case[] {
  return [
    ...wanTextCases(cases, expected, networks.prompts),
    ...networkCases(cases, expected, expected, networks),
    ...wanVideoCases(cases.video ?? [], expected, networks),
    ...Object.keys(cases)
      .filter((kind) => !KNOWN.has(kind))
      .map((name) => ({ name, run: () => skipped(name, 'a kind of case not known yet') })),
  ];
}

/** The same inputs through the original layout: its outputs are fewer, and some of kinds that are not served yet. */
export function originalCases(
  cases: WanCases,
  inputs: Expected,
  outputs: Expected,
  networks: WanNetworks,
): readonly Case[] {
  const known = [
    ...wanTextCases({ prompts: cases.prompts ?? [] }, outputs, networks.prompts),
    ...networkCases(cases, inputs, outputs, networks),
  ];
  const rest = outputs.names.filter((name) => !known.some((entry) => entry.name === name));
  return [
    ...known.filter(({ name }) => outputs.names.includes(name)),
    ...rest.map((name) => ({ name, run: () => skipped(name, 'a kind of case not known yet') })),
  ].map(({ name, run }) => ({
    name: `original ${name}`,
    run: async () => ({ ...(await run()), name: `original ${name}` }),
  }));
}

function networkCases(
  { transformer, image_encoder: images = [], vae = [] }: WanCases,
  inputs: Expected,
  outputs: Expected,
  networks: WanNetworks,
): readonly Case[] {
  return [
    ...transformerRuns(transformer, inputs).map(({ name, ...run }) => ({
      name,
      run: () => transformerCase(name, run, inputs, outputs, networks),
    })),
    ...images.map((entry) => ({ name: entry.key, run: () => imageCase(entry, inputs, outputs, networks) })),
    ...vae.flatMap((entry) => [
      { name: entry.dec, run: () => decodeCase(entry, inputs, outputs, networks) },
      { name: entry.enc_mean, run: () => encodeCase(entry, inputs, outputs, networks) },
    ]),
  ];
}

interface TransformerRun extends Pick<TransformerCall, 'timestep' | 'condition'> {
  readonly name: string;
}

function transformerRuns(cases: WanCases['transformer'], inputs: Expected): readonly TransformerRun[] {
  if (cases === undefined) return [];
  if ('timesteps' in cases) {
    const channels = inputs.names.includes('transformer.channels') && inputs.floats('transformer.channels');
    const images = inputs.names.includes('transformer.pictures') ? inputs.floats('transformer.pictures') : undefined;
    const reference = inputs.names.includes('transformer.reference')
      ? inputs.floats('transformer.reference')
      : undefined;
    const condition = channels ? ({ kind: 'image', channels, images, reference } as const) : undefined;
    const runs = cases.timesteps.map((timestep) => ({ name: `transformer.t${timestep}`, timestep, condition }));
    const { clean: count } = cases;
    if (count === undefined) return runs;
    const clean = { kind: 'clean', count } as const;
    return runs.flatMap((run) => [run, { ...run, name: `${run.name}.clean`, condition: clean }]);
  }
  const control = inputs.floats('transformer.control');
  // As Python writes it: a whole number with one digit after the point.
  const written = (scale: number) => (Number.isInteger(scale) ? scale.toFixed(1) : String(scale));
  return cases.scales.map((scale) => ({
    name: `transformer.s${written(scale)}`,
    timestep: cases.timestep,
    condition: { kind: 'vace', control, scale },
  }));
}

async function transformerCase(
  key: string,
  run: Omit<TransformerRun, 'name'>,
  inputs: Expected,
  outputs: Expected,
  networks: WanNetworks,
): Promise<CaseResult> {
  const [, , frames = 0, height = 0, width = 0] = inputs.shape('transformer.in');
  const actual = await networks.denoiser.predict({
    latents: inputs.floats('transformer.in'),
    size: { frames, height, width },
    texts: [inputs.floats('transformer.text')],
    ...run,
  });
  return judge(key, [{ what: 'flow', actual, expected: outputs.get(key), tolerance: 'network' }]);
}

async function imageCase(
  { picture, pixels, key }: ImageCase,
  inputs: Expected,
  outputs: Expected,
  networks: WanNetworks,
): Promise<CaseResult> {
  const { imageEncoder } = networks.config;
  if (imageEncoder === undefined) throw new Error('the model has no image encoder');
  const [height = 0, width = 0] = inputs.shape(picture);
  const rgb = Uint8Array.from(inputs.get(picture));
  const states = (await networks.imageEncoder?.encode([rgb], { height, width })) ?? [];
  const ready = clipPixels({ rgb, width, height }, imageEncoder);
  return judge(key, [
    { what: 'pixels', actual: ready, expected: inputs.floats(pixels), tolerance: 'network' },
    { what: 'states', actual: states, expected: outputs.get(key), tolerance: 'network' },
  ]);
}

async function decodeCase(
  { frames: count, z, dec }: VaeCase,
  inputs: Expected,
  outputs: Expected,
  networks: WanNetworks,
): Promise<CaseResult> {
  const [, , , height = 0, width = 0] = outputs.shape(dec);
  // The case gives what enters the network; decodeChunks() undoes the statistics.
  const latents = normalizedLatents(inputs.floats(z), networks.config.vae);
  const { autoencoder } = networks;
  const size = { frames: count, height, width };
  const whole = autoencoder.latentSize(size);
  const videoOf = async (chunks: AsyncIterable<DecodedChunk<Float32Array>>) => {
    const decoded: Float32Array[] = [];
    for await (const { frames } of chunks) decoded.push(...frames);
    return videoOfFrames(decoded, 3);
  };
  const parts = partsOf(whole, Math.ceil((whole.width * whole.height) / 4));
  const [actual, inParts] = [
    await videoOf(autoencoder.decodeChunks(planarFrames, latents, size)),
    await videoOf(autoencoder.decodeWith(planarFrames, autoencoder.decoders, latents, size, { parts })),
  ];
  return judge(dec, [
    { what: 'frames', actual, expected: outputs.get(dec), tolerance: 'frames' },
    { what: 'frames in parts', actual: inParts, expected: outputs.get(dec), tolerance: 'frames' },
  ]);
}

async function encodeCase(
  { video, enc_mean: mean }: VaeCase,
  inputs: Expected,
  outputs: Expected,
  networks: WanNetworks,
): Promise<CaseResult> {
  const [, colours = 0, frames = 0, height = 0, width = 0] = inputs.shape(video);
  const pixels = inputs.floats(video);
  const plane = height * width;
  const frame = (f: number) =>
    Float32Array.from({ length: colours * plane }, (_, i) => {
      return pixels[(Math.floor(i / plane) * frames + f) * plane + (i % plane)] ?? 0;
    });
  const actual = await networks.autoencoder.encode(
    Array.from({ length: frames }, (_, f) => frame(f)),
    { height, width },
  );
  return judge(mean, [{ what: 'mean', actual, expected: outputs.get(mean), tolerance: 'network' }]);
}

/**
 * Rebuilds the original layout from `original_manifest.json`: its files and names. A pickle that the golden folder has not got is
 * written as the safetensors file that repackagers make of it.
 */
export async function rebuildOriginal(goldens: string, folder: string): Promise<string> {
  const manifest = await readJson<Record<string, ManifestEntry>>(join(goldens, 'original_manifest.json'));
  for (const [file, { dtype, hash_prefix: hashPrefix, tensors }] of Object.entries(manifest)) {
    if (await exists(join(goldens, file))) {
      await cp(join(goldens, file), join(folder, file));
      continue;
    }
    const path = join(folder, file.replace(/\.pth$/, '.safetensors'));
    await writeHashSafetensors(path, { dtype: assertFloatType(dtype), hashPrefix, tensors });
  }
  const { num_attention_heads: heads, vace_layers } = await readJson<{
    num_attention_heads: number;
    vace_layers?: readonly number[];
  }>(join(goldens, 'model-configs', 'transformer', 'config.json'));
  // What the original code's own config.json has of it.
  const config = { model_type: vace_layers ? 'vace' : 't2v', num_heads: heads, vace_layers };
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await mkdir(join(folder, 'google'));
  await cp(join(goldens, 'model-configs', 'tokenizer'), join(folder, 'google', 'umt5-xxl'), { recursive: true });
  return folder;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await readFile(path, 'utf8')) as T;
}
