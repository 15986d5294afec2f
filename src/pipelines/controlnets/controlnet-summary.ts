import { type ControlNetBase, readControlNetHeader } from './controlnet-header.js';

/** Summary of a ControlNet file as plain data. */
export interface ControlNetSummary {
  readonly base: ControlNetBase;
  readonly layout: 'diffusers' | 'original';
  readonly parameters: number;
  readonly sizeBytes: number;
}

/** @throws InferenceError of `readControlNetHeader` */
export async function readControlNetSummary(path: string): Promise<ControlNetSummary> {
  const { base, layout, parameters, sizeBytes } = await readControlNetHeader(path);
  return { base, layout, parameters, sizeBytes };
}
