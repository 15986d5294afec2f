import { isUpscalerFile, upscalerEndings } from '../../pipelines/upscalers/upscaler-file.js';
import { readUpscalerSummary, type UpscalerSummary } from '../../pipelines/upscalers/upscaler-summary.js';
import { formatParameters } from '../../std/format-parameters.js';
import { readTensorList } from '../../weights/tensor-list.js';

export interface UpscalerInspection extends UpscalerSummary {
  readonly kind: 'upscaler';
}

/** Inspects an upscaler file; undefined for anything else. @throws InferenceError if the upscaler cannot be used */
export async function inspectUpscaler(path: string): Promise<UpscalerInspection | undefined> {
  if (!upscalerEndings.some((ending) => path.toLowerCase().endsWith(ending))) return undefined;
  const { tensors } = await readTensorList(path);
  if (!isUpscalerFile([...tensors.keys()])) return undefined;
  return { kind: 'upscaler', ...(await readUpscalerSummary(path)) };
}

export function describeUpscaler(
  path: string,
  { architecture, scale, parameters, sizeBytes }: UpscalerInspection,
): string {
  return [
    `${path} is an upscaler by ${scale}, ${architecture === 'esrgan' ? 'an ESRGAN' : 'a compact Real-ESRGAN'}.`,
    `  ${formatParameters(parameters)}, ${(sizeBytes / 1e6).toFixed(1)} MB`,
    '',
  ].join('\n');
}
