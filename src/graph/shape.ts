import type { Dim } from './onnx-proto.js';

export type Shape = readonly Dim[];

/**
 * A dimension that is known only at run time is a name. A number before it multiplies it ("2H"), `*` joins names into a product
 * ("H*W"); every other name is atomic, derived ones included: "ceil(H/2)". An axis
 * that is cut, H, has "chunks(H)" of length "chunk(H)"; the run finds both.
 */
export function halved(dim: Dim): Dim {
  if (typeof dim === 'number') return Math.ceil(dim / 2);
  const { factor, name } = multiple(dim);
  return factor % 2 === 0 ? times(factor / 2, name) : `ceil(${dim}/2)`;
}

export function doubled(dim: Dim): Dim {
  return multiplied(dim, 2);
}

export function multiplied(dim: Dim, by: number): Dim {
  if (typeof dim === 'number') return dim * by;
  const { factor, name } = multiple(dim);
  return times(factor * by, name);
}

/** A dimension by a number that it is a multiple of. @throws Error where it is none */
export function divided(dim: Dim, by: number): Dim {
  const { factor, name } = typeof dim === 'number' ? { factor: dim, name: '' } : multiple(dim);
  if (factor % by !== 0) throw new Error(`the dimension ${dim} is no multiple of ${by}`);
  return name === '' ? factor / by : times(factor / by, name);
}

function multiple(dim: string): { factor: number; name: string } {
  const [, factor, name = dim] = /^(\d*)(.*)$/.exec(dim) ?? [];
  return { factor: Number(factor || 1), name };
}

function times(factor: number, name: string): string {
  return factor === 1 ? name : `${factor}${name}`;
}

/** The product of dimensions, as a dimension. */
export function product(dims: Shape): Dim {
  const [first] = dims;
  if (first !== undefined && dims.length === 1) return first;
  const { coefficient, names } = factors(dims);
  if (names.length === 0) return coefficient;
  return coefficient === 1 ? names.join('*') : `${coefficient}*${names.join('*')}`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

export function sameElementCount(a: Shape, b: Shape): boolean {
  const [left, right] = [factors(a), factors(b)];
  return left.coefficient === right.coefficient && left.names.join('*') === right.names.join('*');
}

/** numpy's broadcasting of two shapes; undefined where they do not broadcast. */
export function broadcast(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const result: Dim[] = [];
  for (let i = 0; i < rank; i += 1) {
    const left = a[a.length - rank + i] ?? 1;
    const right = b[b.length - rank + i] ?? 1;
    if (left !== right && left !== 1 && right !== 1) return undefined;
    result.push(left === 1 ? right : left);
  }
  return result;
}

function factors(dims: Shape): { coefficient: number; names: string[] } {
  let coefficient = 1;
  const names: string[] = [];
  for (const dim of dims) {
    if (typeof dim === 'number') {
      coefficient *= dim;
      continue;
    }
    for (const factor of splitTop(dim, '*')) {
      const { factor: number, name } = multiple(factor);
      coefficient *= number;
      if (name !== '') names.push(name);
    }
  }
  return { coefficient, names: names.sort() };
}

/** The size of a dimension, from those of its names; an axis that is cut is taken as one chunk. @throws Error for a name without one */
export function sizeOf(dim: Dim, sizes: Readonly<Record<string, number>>): number {
  if (typeof dim === 'number') return dim;
  return splitTop(dim, '*').reduce((product, factor) => product * sizeOfFactor(factor, sizes), 1);
}

// "4", "H", "2H", "ceil(3H/2)", "2ceil(H/2)", "(2+T)", "chunk(H*W)"
function sizeOfFactor(factor: string, sizes: Readonly<Record<string, number>>): number {
  const { factor: coefficient, name: rest } = multiple(factor);
  if (rest === '') return coefficient;
  const half = /^ceil\((.*)\/2\)$/.exec(rest)?.[1];
  if (half !== undefined) return coefficient * Math.ceil(sizeOf(half, sizes) / 2);
  if (rest.startsWith('chunks(')) return coefficient;
  const cut = /^chunk\((.*)\)$/.exec(rest)?.[1];
  if (cut !== undefined) return coefficient * sizeOf(cut, sizes);
  const sum = /^\((.*)\)$/.exec(rest)?.[1];
  if (sum !== undefined)
    return coefficient * splitTop(sum, '+').reduce((total, term) => total + sizeOf(term, sizes), 0);
  const size = sizes[rest];
  if (size === undefined) throw new Error(`the dimension ${rest} has no size`);
  return coefficient * size;
}

/** Splits at a sign outside of brackets. */
function splitTop(text: string, sign: string): readonly string[] {
  const parts: string[] = [];
  let depth = 0;
  let from = 0;
  for (const [i, character] of [...text].entries()) {
    if (character === '(') depth += 1;
    else if (character === ')') depth -= 1;
    else if (character === sign && depth === 0) {
      parts.push(text.slice(from, i));
      from = i + 1;
    }
  }
  return [...parts, text.slice(from)];
}
