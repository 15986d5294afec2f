import { LARGEST_TILE, readUpscalerFile, type UpscalerConfig } from './upscaler-file.js';

/** Summary of an upscaler file as plain data. */
export interface UpscalerSummary {
  /** Every family takes every upscaler: it sees images alone. */
  readonly base: 'any';
  readonly architecture: UpscalerConfig['kind'];
  /** Pixels of a result's side to one of the image. */
  readonly scale: number;
  readonly parameters: number;
  readonly sizeBytes: number;
  /** What it takes on the device at most: its weights, and the features of a tile. */
  readonly bytes: number;
}

/** @throws InferenceError of `readUpscalerFile` */
export async function readUpscalerSummary(path: string): Promise<UpscalerSummary> {
  const { config, parameters, sizeBytes } = await readUpscalerFile(path);
  const { kind: architecture, scale } = config;
  return { base: 'any', architecture, scale, parameters, sizeBytes, bytes: 4 * parameters + featureBytes(config) };
}

/** In float32: an input, an output and a copy of the widest convolution, which works at the size of the result in an ESRGAN. */
function featureBytes(config: UpscalerConfig): number {
  const side = LARGEST_TILE * (config.kind === 'esrgan' ? config.scale : 1);
  return 3 * 4 * config.channels * side * side;
}
