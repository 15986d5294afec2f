import { split32 } from '../../std/concat-float32.js';
import { quantileOfMagnitudes } from '../../std/quantile-of-magnitudes.js';

/**
 * Clean latents of guidance, cut at a threshold and shrunk to the range of the mimicked ones: what "Dynamic Thresholding (Simple)" of
 * mcmonkeyprojects does, around the means of the channels.
 *
 * https://github.com/mcmonkeyprojects/sd-dynamic-thresholding/blob/73e4e04565aa86237d66764ac58ffae1f7e40e48/dynthres_core.py
 *
 * @param guided [C, ...] of one image or video
 * @param mimicked the same of the mimicked scale
 * @param channels C
 */
export function thresholded(
  guided: Float32Array,
  mimicked: Float32Array,
  channels: number,
  percentile: number,
): Float32Array {
  const area = guided.length / channels;
  const result = guided.slice();
  const parts = split32(result, area);
  const means = parts.map(mean);
  for (const [c, part] of parts.entries()) addTo(part, -(means[c] ?? 0));
  const range = split32(mimicked, area).reduce((most, part) => Math.max(most, largestDeviation(part)), 0);
  const threshold = Math.max(range, quantileOfMagnitudes(result, percentile));
  // All latents are their channel's mean.
  if (threshold === 0) return guided;
  for (let i = 0; i < result.length; i += 1) {
    const cut = Math.min(Math.max(result[i] ?? 0, -threshold), threshold);
    result[i] = (cut / threshold) * range;
  }
  for (const [c, part] of parts.entries()) addTo(part, means[c] ?? 0);
  return result;
}

// Plain loops: a video has millions of latents, and callbacks take several times as long.

/** Largest distance of a value to the mean. */
function largestDeviation(values: Float32Array): number {
  const middle = mean(values);
  let largest = 0;
  for (let i = 0; i < values.length; i += 1) largest = Math.max(largest, Math.abs((values[i] ?? 0) - middle));
  return largest;
}

function mean(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) sum += values[i] ?? 0;
  return sum / values.length;
}

function addTo(values: Float32Array, amount: number): void {
  for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) + amount;
}
