import { InferenceError, listProblems } from '../../errors.js';
import { type LowRankFactor, lowRankProblem } from '../../graph/low-rank.js';
import { floatTypes, type TensorRecord } from '../../weights/safetensors.js';
import type { LoraBase, LoraHeader } from './lora-header.js';

/** The weights of a model that LoRAs change, under every name that files give their modules. */
export interface LoraNames {
  readonly base: LoraBase;
  readonly weights: ReadonlyMap<string, LoraTarget>;
}

export interface LoraTarget {
  readonly component: string;
  /** Key of the weight in its component. */
  readonly key: string;
  readonly shape: readonly number[];
}

/** One weight that a LoRA changes, its numbers unread. */
export interface FittedModule {
  readonly target: LoraTarget;
  readonly down: LowRankFactor;
  readonly up: LowRankFactor;
  /** A scalar; undefined: the rank. */
  readonly alpha: LowRankFactor | undefined;
}

export interface FittedLora {
  readonly modules: readonly FittedModule[];
  /** Keys that match nothing of the model. */
  readonly unmatched: readonly string[];
}

/**
 * Fits a LoRA to a model: which weight each of its modules changes, and whether it can.
 * @throws InferenceError MODEL_UNSUPPORTED for another base, CHECKPOINT_INVALID that lists what is missing, there twice or does not fit
 */
export function fitLora(header: LoraHeader, { base, weights }: LoraNames): FittedLora {
  const { path } = header;
  if (header.base !== base && header.base !== 'unknown') {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} is a LoRA for ${header.base}; this model is ${base}`);
  }
  const problems: string[] = [];
  const modules = new Map<string, FittedModule>();
  const unmatched = [...header.unknown];
  for (const [name, parts] of header.modules) {
    const target = weights.get(name);
    if (target === undefined) {
      unmatched.push(...Object.values(parts).map((record) => record.name));
      continue;
    }
    const where = `${target.component}.${target.key}`;
    if (modules.has(where)) problems.push(`${where} is there twice; its second module is "${name}"`);
    const { down, up, alpha } = parts;
    if (down === undefined || up === undefined) {
      problems.push(`${where} has no ${down === undefined ? 'lora_down' : 'lora_up'}`);
      continue;
    }
    const badType = [down, up, alpha].find((record) => record !== undefined && floatType(record) === undefined);
    if (badType !== undefined) {
      problems.push(`${badType.name} is ${badType.dtype}, must be one of ${floatTypes.join(', ')}`);
      continue;
    }
    const module = { target, down: factor(down), up: factor(up), alpha: alpha && factor(alpha) };
    const problem = lowRankProblem({ ...module, scale: 1, name: where }, target.shape);
    if (problem !== undefined) problems.push(problem);
    modules.set(where, module);
  }
  if (modules.size === 0 && problems.length === 0) {
    const first = [...header.modules.keys()][0] ?? '';
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} changes nothing of ${base}; it begins with "${first}"`);
  }
  if (problems.length > 0) {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} does not fit the model:\n${listProblems(problems)}`);
  }
  return { modules: [...modules.values()], unmatched };
}

function floatType({ dtype }: TensorRecord): LowRankFactor['dtype'] | undefined {
  return floatTypes.find((type) => type === dtype);
}

function factor(record: TensorRecord): LowRankFactor {
  const dtype = floatType(record);
  if (dtype === undefined) throw new Error(`${record.name} was let through as ${record.dtype}`);
  return { ...record, dtype };
}
