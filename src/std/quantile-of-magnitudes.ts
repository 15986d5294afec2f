/**
 * A quantile of the absolute values, interpolated between two neighbours as torch.quantile does, without sorting all of them.
 * @param share 0 to 1: 1 is the largest
 */
export function quantileOfMagnitudes(values: Float32Array, share: number): number {
  const magnitudes = new Float32Array(values.length);
  for (let i = 0; i < values.length; i += 1) magnitudes[i] = Math.abs(values[i] ?? 0);
  const place = share * (magnitudes.length - 1);
  const below = Math.floor(place);
  const low = atRank(magnitudes, below);
  if (place === below) return low;
  return low + (place - below) * (atRank(magnitudes, below + 1) - low);
}

/** The value that would have a rank, from 0, if they were sorted. @param values none is negative */
function atRank(values: Float32Array, rank: number): number {
  // The bits of floats that are not negative have their order. Values are counted by their upper half; those that share the one of
  // the wanted value are sorted.
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const counts = new Uint32Array(2 ** 16);
  for (const bit of bits) counts[bit >>> 16] = (counts[bit >>> 16] ?? 0) + 1;
  let upper = 0;
  let before = 0;
  while (before + (counts[upper] ?? 0) <= rank) {
    before += counts[upper] ?? 0;
    upper += 1;
  }
  const near = new Float32Array(counts[upper] ?? 0);
  let found = 0;
  for (let i = 0; i < bits.length; i += 1) if ((bits[i] ?? 0) >>> 16 === upper) near[found++] = values[i] ?? 0;
  return near.sort()[rank - before] ?? 0;
}
