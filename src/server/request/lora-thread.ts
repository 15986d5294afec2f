/** The program of the thread that reads headers of LoRA files: the folder may hold anything, and requests must not wait for it. */
import { parentPort } from 'node:worker_threads';
import { InferenceError } from '../../errors.js';
import { readLoraSummary } from '../../pipelines/lora/lora-summary.js';

parentPort?.on('message', async (path: string) => {
  const answer = await readLoraSummary(path).then(
    (summary) => ({ summary }),
    (error: unknown) => ({ problem: InferenceError.from(error).toJSON() }),
  );
  parentPort?.postMessage(answer);
});
parentPort?.postMessage('ready');
