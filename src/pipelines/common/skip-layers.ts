import { InferenceError } from '../../errors.js';
import type { GenerationRequest } from '../pipeline.js';

/** Finds what is wrong with blocks that are to be skipped. @param blocks of the model. @returns undefined if nothing is */
export function skipLayersProblem(layers: readonly number[], blocks: number): string | undefined {
  const [unknown] = layers.filter((layer) => layer >= blocks);
  if (unknown === undefined) return undefined;
  return `skip_layer_guidance.layers ${unknown} must be <= ${blocks - 1}: the model has ${blocks} blocks, from 0`;
}

/**
 * The same check with the loaded model: a request that came before it was loaded was not held to its blocks.
 * @throws InferenceError INVALID_REQUEST
 */
export function assertSkippable({ video }: GenerationRequest, blocks: number): void {
  const problem = skipLayersProblem(video?.skipLayers?.layers ?? [], blocks);
  if (problem === undefined) return;
  const violations = [{ field: 'skip_layer_guidance.layers', description: problem }];
  throw new InferenceError('INVALID_REQUEST', problem, { violations });
}
