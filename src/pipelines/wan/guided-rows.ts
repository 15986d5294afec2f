import { split32 } from '../../std/concat-float32.js';
import type { NoisySample } from '../common/clean-latents.js';
import { guideThresholded } from '../common/guidance.js';
import type { GenerationRequest } from '../pipeline.js';
import type { Texts } from './prompt/encode-prompts.js';
import type { Row } from './step-plan.js';

export function textOf(row: Row, texts: Texts): Float32Array {
  const text = row === 'negative' || row === 'negative_skipping' ? texts[0] : texts.at(-1);
  if (text === undefined) throw new Error('a video without texts');
  return text;
}

export function skippedLayers(row: Row, { video }: GenerationRequest): readonly number[] {
  const isSkipping = row === 'negative_skipping' || row === 'prompt_skipping';
  return isSkipping ? (video?.skipLayers?.layers ?? []) : [];
}

/**
 * The guided velocity of a step: classifier-free guidance, dynamic thresholding, and then skip-layer guidance with a scale, which adds
 * prompt - prompt_skipping, scaled.
 * https://github.com/comfyanonymous/ComfyUI/blob/0c853f330c1626416622650cd2b3c0053823258e/comfy_extras/nodes_slg.py#L68
 *
 * @param flows of the rows, side by side: [rows, C, ...] -> [C, ...]
 * @param sample what the transformer saw with each row
 * @param channels C
 */
export function guideRows(
  rows: readonly Row[],
  flows: Float32Array,
  request: GenerationRequest,
  sample: NoisySample,
  channels: number,
): Float32Array {
  const parts = split32(flows, flows.length / rows.length);
  const flowOf = (row: Row) => parts[rows.indexOf(row)];
  const [prompt, negative] = [flowOf('prompt'), flowOf('negative') ?? flowOf('negative_skipping')];
  if (prompt === undefined) throw new Error('a step without its prompt');
  const guided = negative === undefined ? prompt : guideThresholded(negative, prompt, request, () => sample, channels);
  const skipping = flowOf('prompt_skipping');
  const scale = request.video?.skipLayers?.scale ?? 0;
  if (skipping === undefined) return guided;
  const result = new Float32Array(guided.length);
  for (let i = 0; i < result.length; i += 1)
    result[i] = (guided[i] ?? 0) + scale * Math.fround((prompt[i] ?? 0) - (skipping[i] ?? 0));
  return result;
}
