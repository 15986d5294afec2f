import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { InferenceError, type SerializedError } from '../../errors.js';
import type { LoraSummary } from '../../pipelines/lora/lora-summary.js';

/** The largest real header is read in a fraction of a second. */
const READ_MS = 5_000;
/** Memory of the thread, in MB: a file that needs more is refused, and the process goes on. */
const MAX_HEAP_MB = 256;

/** The thread's program in the build. */
export const loraThreadEntry = new URL('./lora-thread.js', import.meta.url);

type Answer = { readonly summary: LoraSummary } | { readonly problem: SerializedError };

/** Reads LoRA files one after the other in a thread of its own, which starts with the first file. */
export class LoraReader {
  readonly #entry: URL;
  #thread: Worker | undefined;

  constructor(entry: URL) {
    this.#entry = entry;
  }

  /** @throws InferenceError what is wrong with the file; CHECKPOINT_INVALID for one that takes too long or too much memory */
  async read(path: string): Promise<LoraSummary> {
    this.#thread ??= startThread(this.#entry);
    const thread = this.#thread;
    const deadline = AbortSignal.timeout(READ_MS);
    thread.postMessage(path);
    const [answer] = (await once(thread, 'message', { signal: deadline }).catch(async (error: unknown) => {
      this.#thread = undefined;
      await thread.terminate();
      const problem = deadline.aborted ? `takes longer than ${READ_MS} ms` : `fails: ${String(error)}`;
      throw new InferenceError('CHECKPOINT_INVALID', `reading the header of ${path} ${problem}`);
    })) as [Answer];
    if ('summary' in answer) return answer.summary;
    throw InferenceError.fromJSON(answer.problem);
  }

  /** Ends the thread. The next file starts another. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.terminate();
  }
}

function startThread(entry: URL): Worker {
  const thread = new Worker(entry, { resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB } });
  // The read that waits is rejected. Without a listener an error between two reads would end the process.
  thread.on('error', () => undefined);
  thread.unref();
  return thread;
}
