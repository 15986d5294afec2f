/** A shape as messages write it: "[2, 4096, B]". */
export function formatShape(shape: readonly (number | string)[]): string {
  return `[${shape.join(', ')}]`;
}
