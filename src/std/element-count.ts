/** Number of elements of a tensor. @param shape empty: a scalar, which has one */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}
