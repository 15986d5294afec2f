import { isControlNetFile } from '../../pipelines/controlnets/controlnet-header.js';
import { type ControlNetSummary, readControlNetSummary } from '../../pipelines/controlnets/controlnet-summary.js';
import { formatParameters } from '../../std/format-parameters.js';
import { readSafetensors } from '../../weights/safetensors.js';

export interface ControlNetInspection extends ControlNetSummary {
  readonly kind: 'controlnet';
}

/** Inspects a ControlNet file; undefined for anything else. @throws InferenceError if the ControlNet cannot be used */
export async function inspectControlNet(path: string): Promise<ControlNetInspection | undefined> {
  if (!path.endsWith('.safetensors')) return undefined;
  const { tensors } = await readSafetensors(path);
  if (!isControlNetFile([...tensors.keys()])) return undefined;
  return { kind: 'controlnet', ...(await readControlNetSummary(path)) };
}

export function describeControlNet(
  path: string,
  { base, layout, modes, parameters, sizeBytes }: ControlNetInspection,
): string {
  return [
    `${path} is a ControlNet${modes > 0 ? ` of ${modes} modes` : ''} for ${base}, in ${layout === 'diffusers' ? "diffusers' names" : 'the original names'}.`,
    `  ${formatParameters(parameters)}, ${(sizeBytes / 1e6).toFixed(1)} MB`,
    '',
  ].join('\n');
}
