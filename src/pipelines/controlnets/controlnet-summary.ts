import { type ControlNetBase, readControlNetHeader } from './controlnet-header.js';

/** Summary of a ControlNet file as plain data. */
export interface ControlNetSummary {
  readonly base: ControlNetBase;
  readonly layout: 'diffusers' | 'original';
  /** Kinds of control images that a union model knows; 0 for an ordinary ControlNet. */
  readonly modes: number;
  readonly parameters: number;
  readonly sizeBytes: number;
}

/** @throws InferenceError of `readControlNetHeader` */
export async function readControlNetSummary(path: string): Promise<ControlNetSummary> {
  const { base, layout, modes, parameters, sizeBytes } = await readControlNetHeader(path);
  return { base, layout, modes, parameters, sizeBytes };
}
