export interface TimestepEmbeddingOptions {
  /** Cosines first. SDXL and WAN: true. */
  readonly flipSinToCos: boolean;
  /** Taken from the number of frequencies in the exponent's divisor. SDXL and WAN: 0. */
  readonly freqShift: number;
}

/**
 * Sinusoids of `dim` wide for one number: sin and cos of t / 10000^(i / (dim/2 - freqShift)), in float32 as the reference
 * computes them. Made on the host: a GPU's own sine is off by 2e-4 on some adapters.
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/embeddings.py#L27
 */
export function timestepEmbedding(t: number, dim: number, options: TimestepEmbeddingOptions): Float32Array {
  const half = Math.floor(dim / 2);
  const embedding = new Float32Array(dim);
  const [cosines, sines] = options.flipSinToCos ? [0, half] : [half, 0];
  for (let i = 0; i < half; i += 1) {
    const exponent = Math.fround(Math.fround(-Math.log(10_000) * i) / (half - options.freqShift));
    const angle = Math.fround(Math.fround(t) * Math.fround(Math.exp(exponent)));
    embedding[cosines + i] = Math.cos(angle);
    embedding[sines + i] = Math.sin(angle);
  }
  return embedding;
}
