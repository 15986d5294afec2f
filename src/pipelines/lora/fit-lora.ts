import { InferenceError, listProblems } from '../../errors.js';
import { type StoredFloats, updateProblem } from '../../graph/weight-update.js';
import { storedTypes, type TensorRecord } from '../../weights/safetensors.js';
import { adapterScale } from './adapter-settings.js';
import type { LoraBase, LoraHeader } from './lora-header.js';
import type { LoraPart } from './lora-keys.js';

/** The modules of a model that LoRAs change, under every name that files give them. */
export interface LoraNames {
  readonly base: LoraBase;
  readonly weights: ReadonlyMap<string, LoraTarget>;
}

export interface LoraTarget {
  readonly component: string;
  /** Path of the module in its component, as diffusers names it. */
  readonly module: string;
  /** The module is a parameter itself, without `.weight`. Omitted: it is not. */
  readonly isParameter?: boolean;
  /** Update of its weight. */
  readonly shape: readonly number[];
  /** Update of its bias; undefined if it has none. */
  readonly biasShape: readonly number[] | undefined;
  /** Layout whose name this is. Where a file has modules of both, those of diffusers count. Omitted: both have it. */
  readonly layout?: 'diffusers' | 'original' | undefined;
}

/** The change of one weight or bias, its numbers unread. */
export type FittedUpdate = FittedFactors | FittedDifference;

interface FittedTarget {
  readonly component: string;
  /** Key of the weight or the bias in its component. */
  readonly key: string;
}

interface FittedFactors {
  readonly kind: 'low-rank';
  readonly target: FittedTarget;
  readonly down: StoredFloats;
  readonly up: StoredFloats;
  /** Factor of up * down: a number from the header, or a tensor of one element that is divided by the rank. */
  readonly scale: number | TensorRecord;
}

interface FittedDifference {
  readonly kind: 'difference';
  readonly target: FittedTarget;
  readonly difference: StoredFloats;
}

export interface FittedLora {
  readonly updates: readonly FittedUpdate[];
  /** Keys that match nothing of the model. */
  readonly unmatched: readonly string[];
}

type Parts = Readonly<Partial<Record<LoraPart, TensorRecord>>>;

/**
 * Fits a LoRA to a model: which weights each of its modules changes, and whether it can.
 * @throws InferenceError MODEL_UNSUPPORTED for another base, CHECKPOINT_INVALID that lists what is missing, there twice or does not fit
 */
export function fitLora(header: LoraHeader, { base, weights }: LoraNames): FittedLora {
  const { path } = header;
  if (header.base !== base && header.base !== 'unknown') {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} is a LoRA for ${header.base}; this model is ${base}`);
  }
  const problems: string[] = [];
  const updates: FittedUpdate[] = [];
  const modules = new Set<string>();
  const unmatched = [...header.unknown];
  const found = [...header.modules].map(([name, parts]) => ({ name, parts, target: weights.get(name) }));
  // As `_maybe_map_sgm_blocks_to_diffusers` does:
  // https://github.com/huggingface/diffusers/blob/019c4962f0bbfc90cd1ac86ced68fb8676e5a5f7/src/diffusers/loaders/lora_conversion_utils.py
  const leavesOriginal = found.some(({ target }) => target?.layout === 'diffusers');
  for (const { name, parts, target } of found) {
    if (target === undefined || (leavesOriginal && target.layout === 'original')) {
      for (const { name: key } of Object.values(parts)) unmatched.push(key);
      continue;
    }
    const where = `${target.component}.${target.module}`;
    if (modules.has(where)) problems.push(`${where}.weight is there twice; its second module is "${name}"`);
    modules.add(where);
    const fitted = fitModule(header, target, parts);
    problems.push(...fitted.problems);
    updates.push(...fitted.updates);
  }
  if (modules.size === 0) {
    const first = [...header.modules.keys()][0] ?? '';
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} changes nothing of ${base}; it begins with "${first}"`);
  }
  if (problems.length > 0) {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} does not fit the model:\n${listProblems(problems)}`);
  }
  return { updates, unmatched };
}

interface FittedModule {
  readonly updates: readonly FittedUpdate[];
  readonly problems: readonly string[];
}

function fitModule({ settings }: LoraHeader, target: LoraTarget, parts: Parts): FittedModule {
  const { component, module, isParameter = false } = target;
  const [weight, bias] = [isParameter ? module : `${module}.weight`, `${module}.bias`];
  const problems: string[] = [];
  const updates: FittedUpdate[] = [];
  /** The tensors in a type that a graph takes; undefined, and noted, where one is not. */
  const floats = (...records: readonly TensorRecord[]): readonly StoredFloats[] | undefined => {
    const known = records.flatMap(storedFloats);
    const bad = records.find((record) => storedFloats(record).length === 0);
    if (bad !== undefined) problems.push(`${bad.name} is ${bad.dtype}, must be one of ${storedTypes.join(', ')}`);
    return bad === undefined ? known : undefined;
  };
  const add = (update: FittedUpdate, shape: readonly number[]) => {
    const name = `${component}.${update.target.key}`;
    const problem = updateProblem({ ...update, scale: 1, name }, shape);
    if (problem === undefined) updates.push(update);
    else problems.push(problem);
  };
  const { down, up, alpha, difference, differenceBias } = parts;
  if (down !== undefined && up !== undefined) {
    const [first, second] = floats(down, up) ?? [];
    const rank = down.shape[0] ?? 0;
    const own = settings.get(component);
    const scale = own === undefined ? (alpha ?? 1) : adapterScale(own, module, rank);
    if (first !== undefined && second !== undefined)
      add({ kind: 'low-rank', target: { component, key: weight }, down: first, up: second, scale }, target.shape);
  } else if (down !== undefined || up !== undefined || (difference ?? differenceBias) === undefined) {
    problems.push(`${component}.${weight} has no ${down === undefined ? 'lora_down' : 'lora_up'}`);
  }
  const [ofWeight] = (difference && floats(difference)) ?? [];
  if (ofWeight !== undefined)
    add({ kind: 'difference', target: { component, key: weight }, difference: ofWeight }, target.shape);
  const [ofBias] = (differenceBias && floats(differenceBias)) ?? [];
  if (ofBias !== undefined && target.biasShape === undefined) {
    problems.push(`${ofBias.name} changes a bias, ${component}.${module} has none`);
  } else if (ofBias !== undefined && target.biasShape !== undefined) {
    add({ kind: 'difference', target: { component, key: bias }, difference: ofBias }, target.biasShape);
  }
  // Factors of rank 0 add nothing.
  return { updates: updates.filter((update) => update.kind !== 'low-rank' || update.down.shape[0] !== 0), problems };
}

function storedFloats(record: TensorRecord): readonly StoredFloats[] {
  return storedTypes.filter((type) => type === record.dtype).map((dtype) => ({ ...record, dtype }));
}
