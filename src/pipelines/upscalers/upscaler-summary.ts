import { readUpscalerFile, type UpscalerConfig } from './upscaler-file.js';

/** Summary of an upscaler file as plain data. */
export interface UpscalerSummary {
  /** Every family takes every upscaler: it sees images alone. */
  readonly base: 'any';
  readonly architecture: UpscalerConfig['kind'];
  /** Pixels of a result's side to one of the image. */
  readonly scale: number;
  readonly parameters: number;
  readonly sizeBytes: number;
}

/** @throws InferenceError of `readUpscalerFile` */
export async function readUpscalerSummary(path: string): Promise<UpscalerSummary> {
  const { config, parameters, sizeBytes } = await readUpscalerFile(path);
  return { base: 'any', architecture: config.kind, scale: config.scale, parameters, sizeBytes };
}
