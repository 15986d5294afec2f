/** The program of the thread that reads headers of add-ons: the folder may hold anything, and requests must not wait for it. */
import { parentPort } from 'node:worker_threads';
import { InferenceError } from '../../errors.js';
import { readControlNetSummary } from '../../pipelines/controlnets/controlnet-summary.js';
import { readEmbeddingSummary } from '../../pipelines/embeddings/embedding-summary.js';
import { readLoraSummary } from '../../pipelines/lora/lora-summary.js';
import { readUpscalerSummary } from '../../pipelines/upscalers/upscaler-summary.js';
import type { AddOnName, AddOnSummaries } from './add-on-kinds.js';

const readers: { readonly [Name in AddOnName]: (path: string) => Promise<AddOnSummaries[Name]> } = {
  lora: readLoraSummary,
  embedding: readEmbeddingSummary,
  controlnet: readControlNetSummary,
  upscaler: readUpscalerSummary,
};

parentPort?.on('message', async ({ kind, path }: { readonly kind: AddOnName; readonly path: string }) => {
  const answer = await readers[kind](path).then(
    (summary) => ({ summary }),
    (error: unknown) => ({ problem: InferenceError.from(error).toJSON() }),
  );
  parentPort?.postMessage(answer);
});
parentPort?.postMessage('ready');
