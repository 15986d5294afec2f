/**
 * The bucket of T5 that the distance from one token to another falls into. Half of the buckets are for later tokens. In each half
 * the first half has one distance each; the others get wider up to `maxDistance`, beyond which all distances share one.
 * In float32 as the reference computes them: some distances lie on the edge of a bucket.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/umt5/modeling_umt5.py#L196
 * @param distance position of the attended token, less that of the attending token
 */
export function relativePositionBucket(distance: number, buckets: number, maxDistance: number): number {
  const half = Math.floor(buckets / 2);
  const side = distance > 0 ? half : 0;
  const steps = Math.abs(distance);
  const exact = Math.floor(half / 2);
  if (steps < exact) return side + steps;
  const octaves = Math.fround(
    Math.fround(Math.log(Math.fround(steps / exact))) / Math.fround(Math.log(maxDistance / exact)),
  );
  return side + Math.min(half - 1, exact + Math.trunc(Math.fround(octaves * (half - exact))));
}

/** Buckets of every pair of `tokens` tokens, a row for each attending token: int32 [T, T]. */
export function relativePositionBuckets(tokens: number, buckets: number, maxDistance: number): Int32Array {
  const byDistance = Int32Array.from({ length: 2 * tokens - 1 }, (_, i) =>
    relativePositionBucket(i - (tokens - 1), buckets, maxDistance),
  );
  const rows = new Int32Array(tokens * tokens);
  for (let i = 0; i < tokens; i += 1) rows.set(byDistance.subarray(tokens - 1 - i, 2 * tokens - 1 - i), i * tokens);
  return rows;
}
