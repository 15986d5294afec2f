import type { FloatType } from '../weights/safetensors.js';
import { syntheticQwenSizes, writeSyntheticQwen } from './qwen.js';
import { syntheticSizes, writeSyntheticSdxl } from './sdxl.js';
import { syntheticWanSizes, writeSyntheticWan } from './wan.js';

/** Writes a model to a path. @param dtype storage type of the weights; omitted, what the released model has */
type WriteModel = (path: string, dtype?: FloatType) => Promise<unknown>;

/** The models of made-up weights that can be written, by name. */
export const syntheticModels: ReadonlyMap<string, WriteModel> = new Map<string, WriteModel>([
  ...syntheticSizes.map(
    (size) => [size, (path, dtype) => writeSyntheticSdxl(path, size, dtype)] as [string, WriteModel],
  ),
  ...syntheticWanSizes.map(
    (size) => [size, (path, dtype) => writeSyntheticWan(path, size, dtype)] as [string, WriteModel],
  ),
  ...syntheticQwenSizes.map(
    (size) => [size, (path, dtype) => writeSyntheticQwen(path, size, dtype)] as [string, WriteModel],
  ),
]);
