import { stat } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { elementCount } from '../../std/element-count.js';
import { formatShape } from '../../std/format-shape.js';
import { shown } from '../../std/shown.js';
import { readTensorList } from '../../weights/tensor-list.js';
import { below, renamed, type WeightFiles } from '../../weights/weight-files.js';

/** Endings of upscaler files, in lower case. */
export const upscalerEndings = ['.safetensors', '.pth'] as const;

/** Network of an upscaler, and its sizes. */
export type UpscalerConfig = EsrganConfig | CompactConfig;

/** RRDBNet of ESRGAN and Real-ESRGAN. Wang et al., arXiv:1809.00219 and arXiv:2107.10833. */
export interface EsrganConfig {
  readonly kind: 'esrgan';
  readonly channels: number;
  /** Channels that each convolution of a dense block adds. */
  readonly growth: number;
  readonly blocks: number;
  /** Doublings behind the blocks. */
  readonly doublings: number;
  /** Side of the squares of pixels that the network reads as one: 1, 2 or 4. */
  readonly unshuffle: number;
  readonly scale: number;
}

/** SRVGGNetCompact of Real-ESRGAN's small models. */
export interface CompactConfig {
  readonly kind: 'compact';
  readonly channels: number;
  /** Convolutions between the first one and the last. */
  readonly convolutions: number;
  readonly scale: number;
}

/** An upscaler's file, its names those of Real-ESRGAN; no number is read. */
export interface UpscalerFile {
  readonly config: UpscalerConfig;
  readonly files: WeightFiles;
  readonly parameters: number;
  readonly sizeBytes: number;
}

/** Weights of the best and of the last step, in one file. The former count, as Real-ESRGAN has it. */
const PREFIXES = ['params_ema.', 'params.'] as const;
/** Side of the tiles in which an image is upscaled, in pixels of the image. */
export const LARGEST_TILE = 256;
const MAX_SCALE = 8;
const MAX_BLOCKS = 64;
/** Between the first convolution of a compact network and its last. Released ones have 16 or 32. */
const MAX_CONVOLUTIONS = 64;
/** Keys of architectures that upscale otherwise. */
const OTHER_KINDS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/relative_position_bias_table|\.attn\.qkv\./, 'a transformer (SwinIR, HAT, DAT and their like)'],
  [/^(upsampler\.|conv_1\.sk\.|block_1\.c1_r\.)/, 'a SPAN'],
];

/** True for a file with an upscaler's tensors. @param keys of all tensors */
export function isUpscalerFile(keys: readonly string[]): boolean {
  const names = keys.map(unifiedNames(keys));
  return names.includes('conv_last.weight') || isCompact(names);
}

/**
 * Reads the header of an upscaler: ESRGAN in its three namings, or Real-ESRGAN's compact network.
 * @throws InferenceError MODEL_UNSUPPORTED for another architecture, CHECKPOINT_INVALID for a file that is not whole
 */
export async function readUpscalerFile(path: string): Promise<UpscalerFile> {
  const { tensors: all, file } = await readTensorList(path);
  const wrapped = PREFIXES.map((prefix) => below(all, prefix)).find(({ size }) => size > 0) ?? all;
  const names = [...wrapped.keys()];
  const tensors = renamed(wrapped, unifiedNames(names));
  const other = OTHER_KINDS.find(([pattern]) => names.some((name) => pattern.test(name)));
  if (other !== undefined) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is ${other[1]}; darkroom takes ESRGAN, Real-ESRGAN and its compact networks`,
    );
  }
  const config = isCompact([...tensors.keys()]) ? compactConfig(path, tensors) : esrganConfig(path, tensors);
  const parameters = [...tensors.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return { config, files: { path, tensors, metadata: {} }, parameters, sizeBytes: (await stat(file)).size };
}

/** Renames the keys of a file to Real-ESRGAN's. */
function unifiedNames(keys: readonly string[]): (key: string) => string {
  const bare = (key: string) => key.slice(PREFIXES.find((each) => key.startsWith(each))?.length ?? 0);
  const last = keys.reduce(
    (most, key) => Math.max(most, Number(/^model\.(\d+)\.weight$/.exec(bare(key))?.[1] ?? 0)),
    0,
  );
  return (key) => newName(bare(key), last);
}

/** Names of the first ESRGAN and of its rewriting, by those of Real-ESRGAN. */
const RENAMES: readonly (readonly [pattern: RegExp, to: string])[] = [
  [/^model\.0\./, 'conv_first.'],
  [/^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\./, 'body.$1.rdb$2.conv$3.'],
  [/^model\.1\.sub\.\d+\./, 'conv_body.'],
  [/^RRDB_trunk\.(\d+)\.RDB(\d)\./, 'body.$1.rdb$2.'],
  [/^trunk_conv\./, 'conv_body.'],
  [/^upconv(\d)\./, 'conv_up$1.'],
  [/^HRconv\./, 'conv_hr.'],
];

/** @param last number of the last layer of the first naming: `model.10.weight` */
function newName(name: string, last: number): string {
  const numbered = /^model\.(\d+)\.(weight|bias)$/.exec(name);
  if (numbered !== null && Number(numbered[1]) > 1) {
    const [, layer, part] = numbered;
    // Layers of 3 from the first doubling on (nearest, convolution, activation); then two convolutions with an activation between.
    const distance = last - Number(layer);
    if (distance === 0) return `conv_last.${part}`;
    return distance === 2 ? `conv_hr.${part}` : `conv_up${Math.floor(Number(layer) / 3)}.${part}`;
  }
  const rename = RENAMES.find(([pattern]) => pattern.test(name));
  return rename === undefined ? name : name.replace(rename[0], rename[1]);
}

function isCompact(names: readonly string[]): boolean {
  // Behind every convolution stands an activation with a slope for each channel.
  return names.includes('body.0.weight') && names.includes('body.1.weight') && !names.includes('conv_last.weight');
}

function esrganConfig(path: string, tensors: WeightFiles['tensors']): EsrganConfig {
  const shapeOf = (key: string): readonly number[] => tensors.get(key)?.shape ?? [];
  const [channels = 0, inputs = 0] = shapeOf('conv_first.weight');
  const [growth = 0] = shapeOf('body.0.rdb1.conv1.weight');
  const numbersOf = (pattern: RegExp) =>
    [...tensors.keys()].map((key) => Number(pattern.exec(key)?.[1] ?? -1)).reduce((a, b) => Math.max(a, b), -1);
  const blocks = numbersOf(/^body\.(\d+)\.rdb1\.conv1\.weight$/) + 1;
  const doublings = Math.max(0, numbersOf(/^conv_up(\d+)\.weight$/));
  const unshuffle = Math.sqrt(inputs / 3);
  const scale = 2 ** doublings / unshuffle;
  if (channels === 0 || growth === 0 || !Number.isInteger(unshuffle) || !Number.isInteger(scale)) {
    const [first] = tensors.keys();
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is no upscaler that darkroom takes (ESRGAN, Real-ESRGAN and its compact networks); it begins with "${shown(first ?? '')}"`,
    );
  }
  if (scale > MAX_SCALE || blocks > MAX_BLOCKS) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} has a scale of ${scale} and ${blocks} blocks, must have at most ${MAX_SCALE} and ${MAX_BLOCKS}`,
    );
  }
  return { kind: 'esrgan', channels, growth, blocks, doublings, unshuffle, scale };
}

function compactConfig(path: string, tensors: WeightFiles['tensors']): CompactConfig {
  const layers = [...tensors.keys()].flatMap((key) => /^body\.(\d+)\.weight$/.exec(key)?.[1] ?? []).map(Number);
  const last = layers.reduce((a, b) => Math.max(a, b), 0);
  const { shape: first = [] } = tensors.get('body.0.weight') ?? {};
  const { shape = [] } = tensors.get(`body.${last}.weight`) ?? {};
  const scale = Math.sqrt((shape[0] ?? 0) / 3);
  const convolutions = (last - 2) / 2;
  if (
    !Number.isInteger(scale) ||
    scale < 1 ||
    scale > MAX_SCALE ||
    !Number.isInteger(convolutions) ||
    first.length !== 4
  )
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${path} has a last layer of ${formatShape(shape)}, which is no square of pixels`,
    );
  if (convolutions > MAX_CONVOLUTIONS)
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} has ${convolutions} convolutions between its first and its last, must have at most ${MAX_CONVOLUTIONS}`,
    );
  return { kind: 'compact', channels: first[0] ?? 0, convolutions, scale };
}
