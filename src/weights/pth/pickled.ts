/** The values that pickle.ts reads out of a state dict: plain values, and descriptions of torch's tensors and storages. */

export interface PickledStorage {
  readonly kind: 'storage';
  /** Name of its type in torch, for example "FloatStorage". */
  readonly type: string;
  /** Its entry's name below `data/`. */
  readonly key: string;
  readonly elements: number;
}

export interface PickledTensor {
  readonly kind: 'tensor';
  readonly storage: PickledStorage;
  /** In elements. */
  readonly offset: number;
  readonly shape: readonly number[];
  /** In elements. */
  readonly strides: readonly number[];
}

export interface PickledSequence {
  readonly kind: 'tuple' | 'list';
  readonly items: Pickled[];
}

export interface PickledGlobal {
  readonly kind: 'global';
  readonly name: string;
}

/** A dict, by its keys that are strings; others cannot name a tensor and are dropped. */
export type PickledDict = Map<string, Pickled>;
export type Pickled =
  | null
  | boolean
  | number
  | string
  | PickledDict
  | PickledSequence
  | PickledStorage
  | PickledTensor
  | PickledGlobal;

export function tensorOf(value: Pickled | undefined): PickledTensor | undefined {
  return isObject(value) && value.kind === 'tensor' ? value : undefined;
}

export function sequenceOf(value: Pickled | undefined): PickledSequence | undefined {
  return isObject(value) && (value.kind === 'tuple' || value.kind === 'list') ? value : undefined;
}

export function globalOf(value: Pickled | undefined): string | undefined {
  return isObject(value) && value.kind === 'global' ? value.name : undefined;
}

export function isStorage(value: Pickled | undefined): value is PickledStorage {
  return isObject(value) && value.kind === 'storage';
}

function isObject(
  value: Pickled | undefined,
): value is PickledSequence | PickledStorage | PickledTensor | PickledGlobal {
  return typeof value === 'object' && value !== null && !(value instanceof Map);
}

export function countsOf(value: Pickled | undefined): number[] | undefined {
  const items = sequenceOf(value)?.items;
  return items?.every(isCount) ? items.filter(isCount) : undefined;
}

export function isCount(value: Pickled | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
