/** Classifier-free guidance: [2, ...], unconditional first -> [...]. Ho and Salimans, arXiv:2207.12598. */
export function guide(output: Float32Array, guidanceScale: number): Float32Array {
  const half = output.length / 2;
  return Float32Array.from({ length: half }, (_, i) => {
    const unconditional = output[i] ?? 0;
    return unconditional + guidanceScale * Math.fround((output[half + i] ?? 0) - unconditional);
  });
}
