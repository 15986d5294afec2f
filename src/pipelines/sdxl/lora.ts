import { open } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { floatsFrom } from '../../graph/half-floats.js';
import type { LowRankFactor, LowRankUpdate } from '../../graph/low-rank.js';
import { floatTypes, readSafetensors, type TensorRecord } from '../../graph/safetensors.js';
import type { ComponentName } from './checkpoint.js';
import type { SdxlConfig } from './config.js';
import { originalUNetNames } from './original-names.js';
import { planSdxlWeights } from './weights.js';

/** A LoRA on top of a checkpoint. */
export interface LoraSource {
  readonly path: string;
  /** Of the UNet. */
  readonly weight: number;
  /** Of the text encoders. Omitted: the same. */
  readonly textEncoderWeight?: number | undefined;
}

export type LoraFormat = 'kohya' | 'peft';

/** A LoRA file that was read and fitted to a checkpoint's names. */
export interface LoraFile {
  readonly path: string;
  readonly format: LoraFormat;
  /** By component and the key of the weight that each changes. */
  readonly modules: Readonly<Record<LoraComponent, ReadonlyMap<string, LoraModule>>>;
  /** Keys that match nothing of the checkpoint. */
  readonly unmatched: readonly string[];
  /** Of its modules, the largest. */
  readonly rank: number;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface LoraModule {
  readonly down: LowRankFactor;
  readonly up: LowRankFactor;
  readonly alpha: number;
}

const components = ['unet', 'text_encoder', 'text_encoder_2'] as const;
type LoraComponent = (typeof components)[number];

/** What keys of other methods have in them. A LoRA's arithmetic would make something else of their tensors. */
const OTHER_METHODS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/\.hada_w\d/, 'LoHa'],
  [/\.lokr_w\d/, 'LoKr'],
  [/\.(dora_scale|lora_magnitude_vector)/, 'DoRA'],
  [/\.(oft_blocks|oft_diag|oft_R)/, 'OFT'],
  [/\.lora_mid\./, 'LoCon with a core (Tucker)'],
  [/\.(on_input|w_norm|b_norm|diff|diff_b)$/, 'weights of another kind than LoRA'],
];

/**
 * Reads a LoRA file of kohya's scripts (with diffusers' block names or the original ones) or of PEFT and diffusers.
 *
 * @param config of the checkpoint that it is for
 * @throws InferenceError MODEL_UNSUPPORTED for another method or base, CHECKPOINT_INVALID for a file that is not whole
 */
export async function readLora(path: string, config: SdxlConfig): Promise<LoraFile> {
  const { tensors, metadata, file } = await readSafetensors(path);
  const other = OTHER_METHODS.find(([pattern]) => [...tensors.keys()].some((key) => pattern.test(key)));
  if (other !== undefined) refuse('MODEL_UNSUPPORTED', path, `is ${other[1]}; darkroom takes LoRA`);
  if ([...tensors.keys()].some((key) => /^lora_te_/.test(key))) {
    refuse(
      'MODEL_UNSUPPORTED',
      path,
      'is a LoRA for Stable Diffusion 1 or 2 (lora_te_*); darkroom takes those for SDXL',
    );
  }
  const names = moduleNames(config);
  const parts = new Map<string, Partial<Record<Part, TensorRecord>>>();
  const unmatched: string[] = [];
  let format: LoraFormat = 'kohya';
  for (const [key, record] of tensors) {
    const found = parseKey(key);
    const weight = found && names.get(found.module);
    if (found === undefined || weight === undefined) {
      unmatched.push(key);
      continue;
    }
    format = found.format;
    const module = parts.get(weight) ?? {};
    if (module[found.part] !== undefined)
      refuse('CHECKPOINT_INVALID', path, `has ${weight} twice, "${key}" the second`);
    module[found.part] = record;
    parts.set(weight, module);
  }
  if (parts.size === 0) {
    refuse('MODEL_UNSUPPORTED', path, `has no LoRA keys of an SDXL; it begins with "${[...tensors.keys()][0] ?? ''}"`);
  }
  const reader = await open(file, 'r');
  try {
    const modules = await Promise.all(
      [...parts].map(async ([weight, part]) => [weight, await moduleOf(path, weight, part, reader)] as const),
    );
    const of = (component: LoraComponent) =>
      new Map(
        modules
          .filter(([weight]) => weight.startsWith(`${component}:`))
          .map(([weight, module]) => [weight.slice(component.length + 1), module]),
      );
    return {
      path,
      format,
      modules: { unet: of('unet'), text_encoder: of('text_encoder'), text_encoder_2: of('text_encoder_2') },
      unmatched,
      rank: Math.max(...modules.map(([, { down }]) => down.shape[0] ?? 0)),
      metadata,
    };
  } finally {
    await reader.close();
  }
}

/** What LoRAs add to the weights of one component, by key. */
export function loraUpdates(
  loras: readonly (LoraSource & { readonly file: LoraFile })[],
  component: ComponentName,
): ReadonlyMap<string, readonly LowRankUpdate[]> {
  const updates = new Map<string, LowRankUpdate[]>();
  const own = components.find((name) => name === component);
  if (own === undefined) return updates;
  for (const { file, weight, textEncoderWeight = weight } of loras) {
    const strength = own === 'unet' ? weight : textEncoderWeight;
    if (strength === 0) continue;
    for (const [key, { down, up, alpha }] of file.modules[own]) {
      const scale = (strength * alpha) / (down.shape[0] ?? 1);
      const update = { down, up, scale, name: `${file.path}: ${own}.${key}` };
      updates.set(key, [...(updates.get(key) ?? []), update]);
    }
  }
  return updates;
}

type Part = 'down' | 'up' | 'alpha';

/** "lora_unet_down_blocks_1_…" and "unet.down_blocks.1.…" -> "unet:down_blocks.1.….weight". */
function moduleNames(config: SdxlConfig): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  const plan = planSdxlWeights(config);
  const prefixes = { unet: 'lora_unet_', text_encoder: 'lora_te1_', text_encoder_2: 'lora_te2_' } as const;
  const original = originalUNetNames(plan.unet.map(([name]) => name));
  for (const component of components) {
    for (const [key] of plan[component]) {
      if (!key.endsWith('.weight')) continue;
      const module = key.slice(0, -'.weight'.length);
      const target = `${component}:${key}`;
      names.set(`${component}.${module}`, target);
      names.set(prefixes[component] + module.replaceAll('.', '_'), target);
      const other = component === 'unet' ? original.get(key) : undefined;
      if (other !== undefined) names.set(`lora_unet_${other.slice(0, -'.weight'.length).replaceAll('.', '_')}`, target);
    }
  }
  return names;
}

function parseKey(key: string): { module: string; part: Part; format: LoraFormat } | undefined {
  const kohya = /^(lora_(?:unet|te1|te2)_.+)\.(?:lora_(down|up)\.weight|(alpha))$/.exec(key);
  if (kohya) return { module: kohya[1] ?? '', part: (kohya[2] ?? 'alpha') as Part, format: 'kohya' };
  const peft =
    /^(?:base_model\.model\.)?(.+?)\.(?:lora_([AB])(?:\.default)?\.weight|lora(?:_linear_layer)?\.(down|up)\.weight|(alpha))$/.exec(
      key,
    );
  if (peft === null) return undefined;
  const part = peft[2] === 'A' ? 'down' : peft[2] === 'B' ? 'up' : (peft[3] ?? 'alpha');
  return { module: peft[1] ?? '', part: part as Part, format: 'peft' };
}

type Reader = Awaited<ReturnType<typeof open>>;

async function moduleOf(
  path: string,
  weight: string,
  { down, up, alpha }: Partial<Record<Part, TensorRecord>>,
  reader: Reader,
): Promise<LoraModule> {
  const name = weight.replace(':', '.');
  if (down === undefined || up === undefined) {
    return refuse('CHECKPOINT_INVALID', path, `has no ${down === undefined ? 'lora_down' : 'lora_up'} of ${name}`);
  }
  const factors = { down: factorOf(path, down), up: factorOf(path, up) };
  for (const factor of Object.values(factors)) await readFinite(path, factor, reader);
  // Without one it is the rank, and the two cancel out.
  const found = alpha === undefined ? (down.shape[0] ?? 1) : await readScalar(path, factorOf(path, alpha), reader);
  return { ...factors, alpha: found };
}

function factorOf(path: string, record: TensorRecord): LowRankFactor {
  const dtype = floatTypes.find((type) => type === record.dtype);
  if (dtype === undefined) {
    return refuse(
      'CHECKPOINT_INVALID',
      path,
      `has ${record.name} as ${record.dtype}, must be one of ${floatTypes.join(', ')}`,
    );
  }
  return { ...record, dtype };
}

/** LoRA files are small: a NaN in one is found here rather than in a black picture. */
async function readFinite(path: string, record: LowRankFactor, reader: Reader): Promise<Uint8Array> {
  const bytes = await read(record, reader);
  const [words, exponent] =
    record.dtype === 'F32'
      ? [new Uint32Array(bytes.buffer), 0x7f800000]
      : [new Uint16Array(bytes.buffer), record.dtype === 'F16' ? 0x7c00 : 0x7f80];
  for (const word of words) {
    // An exponent of all ones is infinity or no number. The sign bit of a 32-bit word must not turn it negative.
    if ((word & exponent) >>> 0 === exponent)
      refuse('CHECKPOINT_INVALID', path, `has a NaN or an infinity in ${record.name}`);
  }
  return bytes;
}

async function readScalar(path: string, record: LowRankFactor, reader: Reader): Promise<number> {
  const bytes = await readFinite(path, record, reader);
  const elements = record.shape.reduce((product, dim) => product * dim, 1);
  if (elements !== 1) return refuse('CHECKPOINT_INVALID', path, `has ${elements} numbers in ${record.name}, must be 1`);
  return floatsFrom(record.dtype, bytes)[0] ?? 0;
}

async function read({ offset, length }: TensorRecord, reader: Reader): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  await reader.read(bytes, 0, length, offset);
  return bytes;
}

function refuse(reason: 'CHECKPOINT_INVALID' | 'MODEL_UNSUPPORTED', path: string, problem: string): never {
  throw new InferenceError(reason, `${path} ${problem}`);
}
