import { type LoraBase, type LoraHeader, readLoraHeader, trainedTags } from './lora-header.js';
import type { LoraFormat } from './lora-keys.js';

/** Summary of a LoRA file as plain data. */
export interface LoraSummary {
  readonly base: LoraBase;
  readonly format: LoraFormat;
  /** The largest rank of its modules. */
  readonly rank: number;
  readonly modules: number;
  readonly sizeBytes: number;
  /** Words that its training images were described with, the most frequent first. */
  readonly tags: readonly string[];
}

const MAX_TAGS = 20;

/** @throws InferenceError of `readLoraHeader` */
export async function readLoraSummary(path: string): Promise<LoraSummary> {
  return summaryOf(await readLoraHeader(path));
}

function summaryOf(header: LoraHeader): LoraSummary {
  const { base, format, rank, modules, sizeBytes } = header;
  return { base, format, rank, modules: modules.size, sizeBytes, tags: trainedTags(header, MAX_TAGS) };
}
