import { InferenceError, listProblems } from '../../errors.js';
import {
  type Magnitude,
  type Product,
  type StoredFloats,
  updateProblem,
  type WeightUpdate,
} from '../../graph/weight-update.js';
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
export interface FittedUpdate {
  readonly component: string;
  /** Key of the weight or the bias in its component. */
  readonly key: string;
  /** With a scale of 1. */
  readonly update: WeightUpdate;
  /** What the file scales it by. */
  readonly scale: UnreadScale;
}

/** A number from the header, or a tensor of one element that is divided by the rank. */
export type UnreadScale = number | { readonly alpha: TensorRecord; readonly rank: number };

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
  const stored = storedParts(parts, problems);
  const own = settings.get(component);
  const scaleOf = (rank: number | undefined): UnreadScale => {
    if (rank === undefined) return 1;
    if (own !== undefined) return adapterScale(own, module, rank);
    return parts.alpha === undefined ? 1 : { alpha: parts.alpha, rank };
  };
  const add = (key: string, change: Change, scale: UnreadScale, shape: readonly number[]) => {
    const update = { ...change, scale: 1, name: `${component}.${key}` };
    const problem = updateProblem(update, shape);
    if (problem === undefined) updates.push({ component, key, update, scale });
    else problems.push(problem);
  };
  const addToBias = (difference: StoredFloats, scale: UnreadScale) => {
    if (target.biasShape === undefined)
      problems.push(`${difference.name} changes a bias, ${component}.${module} has none`);
    else add(bias, { kind: 'difference', difference }, scale, target.biasShape);
  };
  const factors = problems.length > 0 ? undefined : factorsOf(stored, `${component}.${weight}`, problems);
  // Factors of rank 0 add nothing.
  if (factors !== undefined && factors.rank !== 0) {
    const magnitude = magnitudeOf(stored, target.shape);
    add(weight, { ...factors.change, magnitude }, scaleOf(factors.rank), target.shape);
    if (stored.upBias !== undefined) addToBias(stored.upBias, scaleOf(factors.rank));
  }
  const { difference, differenceBias } = stored;
  if (difference !== undefined) add(weight, { kind: 'difference', difference }, 1, target.shape);
  if (differenceBias !== undefined) addToBias(differenceBias, 1);
  return { updates, problems };
}

type StoredParts = Readonly<Partial<Record<LoraPart, StoredFloats>>>;
/** An update without its scale and its name. */
type Change = WeightUpdate extends infer Kind
  ? Kind extends WeightUpdate
    ? Omit<Kind, 'scale' | 'name'>
    : never
  : never;

/** The tensors in a type that a graph takes; a problem for each one in another. */
function storedParts({ alpha: _, ...parts }: Parts, problems: string[]): StoredParts {
  const stored: Partial<Record<LoraPart, StoredFloats>> = {};
  for (const [part, record] of Object.entries(parts) as [LoraPart, TensorRecord][]) {
    const dtype = storedTypes.find((type) => type === record.dtype);
    if (dtype !== undefined) stored[part] = { ...record, dtype };
    else problems.push(`${record.name} is ${record.dtype}, must be one of ${storedTypes.join(', ')}`);
  }
  return stored;
}

interface Factors {
  readonly change: Change;
  /** Undefined: it has none, and nothing scales it. */
  readonly rank: number | undefined;
}

/** The factors of a module, of whichever method; undefined where it has none, or not all, which is a problem. */
function factorsOf(parts: StoredParts, weight: string, problems: string[]): Factors | undefined {
  const { down, up, mid, difference, differenceBias } = parts;
  const has = (method: string) => Object.keys(parts).some((part) => part.startsWith(method));
  const missing = (name: string) => {
    problems.push(`${weight} has no ${name}`);
    return undefined;
  };
  if (has('hada_')) {
    const { hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b, hada_t1, hada_t2 } = parts;
    if (hada_w1_a === undefined || hada_w1_b === undefined) return missing('hada_w1_a and hada_w1_b');
    if (hada_w2_a === undefined || hada_w2_b === undefined) return missing('hada_w2_a and hada_w2_b');
    const products = [product(hada_w1_a, hada_w1_b, hada_t1), product(hada_w2_a, hada_w2_b, hada_t2)] as const;
    return { change: { kind: 'hadamard', products }, rank: hada_w1_b.shape[0] };
  }
  if (has('lokr_')) {
    const { lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b, lokr_t2 } = parts;
    const first = lokr_w1 ?? (lokr_w1_a && lokr_w1_b && product(lokr_w1_a, lokr_w1_b));
    const second = lokr_w2 ?? (lokr_w2_a && lokr_w2_b && product(lokr_w2_a, lokr_w2_b, lokr_t2));
    if (first === undefined) return missing('lokr_w1');
    if (second === undefined) return missing('lokr_w2');
    const rank = (lokr_w1 === undefined ? lokr_w1_b : lokr_w2 === undefined ? lokr_w2_b : undefined)?.shape[0];
    return { change: { kind: 'kronecker', factors: [first, second] }, rank };
  }
  if (down !== undefined && up !== undefined)
    return { change: { kind: 'low-rank', product: { down, up, core: mid } }, rank: down.shape[0] };
  if (down !== undefined) return missing('lora_up');
  return up !== undefined || (difference ?? differenceBias) === undefined ? missing('lora_down') : undefined;
}

/** A product as LyCORIS stores it: with a core, the first factor is transposed. */
function product(up: StoredFloats, down: StoredFloats, core?: StoredFloats): Product {
  return { up, down, core, isUpTransposed: core !== undefined };
}

/**
 * The lengths of a module of DoRA. PEFT has one for each output; LyCORIS for each output, [O, 1], or for each input, [1, I]:
 * `wd_on_out` in https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/modules/locon.py
 */
function magnitudeOf({ magnitude, doraScale }: StoredParts, [outputs]: readonly number[]): Magnitude | undefined {
  if (magnitude !== undefined) return { lengths: magnitude, of: 'outputs' };
  return doraScale && { lengths: doraScale, of: doraScale.shape[0] === outputs ? 'outputs' : 'inputs' };
}
