import { isGguf } from './gguf/gguf-types.js';
import { type GgufWeightsOptions, readGgufWeights } from './gguf/gguf-weights.js';
import { readTensorList } from './tensor-list.js';
import type { WeightFiles } from './weight-files.js';

/**
 * Reads the list of tensors of one file, no tensor: of GGUF and of torch.save where its ending says so, else of safetensors.
 * @param options of GGUF files
 * @throws InferenceError of the reader
 */
export async function readWeightFile(path: string, options: GgufWeightsOptions = {}): Promise<WeightFiles> {
  if (isGguf(path)) return readGgufWeights(path, options);
  const { tensors, metadata } = await readTensorList(path);
  return { path, tensors, metadata };
}
