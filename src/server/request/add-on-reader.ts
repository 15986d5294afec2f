import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { InferenceError, type SerializedError } from '../../errors.js';
import type { AddOnName, AddOnSummaries } from './add-on-kinds.js';

/** The largest real header is read in a fraction of a second. */
const READ_MS = 5_000;
/** A busy machine may take seconds to start a thread. */
const START_MS = 60_000;
/** Memory of the thread, in MB: a file that needs more is refused, and the process goes on. */
const MAX_HEAP_MB = 256;

/** The thread's program in the build. */
export const addOnThreadEntry = new URL('./add-on-thread.js', import.meta.url);

type Answer<Summary> = { readonly summary: Summary } | { readonly problem: SerializedError };

/** `isFinal`: what the file itself is. Otherwise the thread failed, and another attempt may succeed. */
export type AddOnReading<Summary> =
  | { readonly summary: Summary }
  | { readonly problem: InferenceError; readonly isFinal: boolean };

/** Reads the headers of add-ons one after the other in a thread of its own, which starts with the first file. */
export class AddOnReader {
  readonly #entry: URL;
  #thread: Worker | undefined;

  constructor(entry: URL) {
    this.#entry = entry;
  }

  async read<Name extends AddOnName>(kind: Name, path: string): Promise<AddOnReading<AddOnSummaries[Name]>> {
    try {
      this.#thread ??= await startThread(this.#entry);
      this.#thread.postMessage({ kind, path });
      const answer = await messageOf<Answer<AddOnSummaries[Name]>>(this.#thread, READ_MS);
      if ('summary' in answer) return answer;
      return { problem: InferenceError.fromJSON(answer.problem), isFinal: true };
    } catch (error) {
      await this.close();
      const reason = error instanceof Error ? error.message : String(error);
      const message = `the header of ${path} cannot be read: ${reason}`;
      return { problem: new InferenceError('CHECKPOINT_INVALID', message, { cause: error }), isFinal: false };
    }
  }

  /** Ends the thread. The next file starts another. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.terminate();
  }
}

async function startThread(entry: URL): Promise<Worker> {
  const thread = new Worker(entry, { resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB } });
  // The read that waits is rejected. Without a listener an error between two reads would end the process.
  thread.on('error', () => undefined);
  thread.unref();
  try {
    await messageOf(thread, START_MS);
    return thread;
  } catch (error) {
    await thread.terminate();
    throw error;
  }
}

/** @throws Error of the thread, or where it sends nothing for so long */
async function messageOf<T>(thread: Worker, ms: number): Promise<T> {
  const deadline = AbortSignal.timeout(ms);
  const [message] = (await once(thread, 'message', { signal: deadline }).catch((error: unknown) => {
    throw deadline.aborted ? new Error(`it takes longer than ${ms} ms`) : error;
  })) as [T];
  return message;
}
