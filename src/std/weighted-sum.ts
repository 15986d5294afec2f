/**
 * `a` x + `b` y of arrays of one length, in float64 and rounded once. A plain loop, because a device waits for it: a typed array's `map`
 * takes ten times as long.
 */
export function weightedSum(a: number, x: Float32Array, b: number, y: Float32Array): Float32Array {
  const sum = new Float32Array(x.length);
  for (let j = 0; j < sum.length; j += 1) sum[j] = a * (x[j] ?? 0) + b * (y[j] ?? 0);
  return sum;
}
