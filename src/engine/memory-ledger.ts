import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import type { DeviceMemory } from '../runtime/device-memory.js';
import { formatBytes } from '../std/format-bytes.js';

export interface MemoryLedgerOptions {
  /** What there is now; asked anew for every decision. */
  readonly measure: () => Promise<DeviceMemory>;
  /** Left free whatever comes. */
  readonly reserveBytes: number;
  /** How long a model waits for room that others may give back. Omitted: 20 s, a text encoder's run and its release. */
  readonly waitMs?: number;
  /** Omitted: 0.5 s. */
  readonly pollMs?: number;
}

/** Room that was granted to a model which does not fill it yet. */
export interface Grant {
  /** The model is loaded or given up: measuring sees it. */
  settle(): void;
}

const WAIT_MS = 20_000;
const POLL_MS = 500;

/** Decides whether a model that is loaded on demand fits beside those that are. */
export class MemoryLedger {
  readonly #options: MemoryLedgerOptions;
  readonly #pending = new Set<{ readonly bytes: number }>();

  constructor(options: MemoryLedgerOptions) {
    this.#options = options;
  }

  /**
   * Waits until there is room.
   * @param bytes that the model takes at its peak
   * @throws InferenceError OUT_OF_MEMORY that says what is needed and what there is, at once where it can never fit
   */
  async grant(model: string, bytes: number, signal?: AbortSignal): Promise<Grant> {
    const { measure, reserveBytes, waitMs = WAIT_MS, pollMs = POLL_MS } = this.#options;
    const deadline = performance.now() + waitMs;
    for (;;) {
      signal?.throwIfAborted();
      const { kind, totalBytes, freeBytes } = await measure();
      const promised = [...this.#pending].reduce((sum, pending) => sum + pending.bytes, 0);
      const room = freeBytes - promised - reserveBytes;
      if (bytes <= room) {
        const pending = { bytes };
        this.#pending.add(pending);
        return { settle: () => this.#pending.delete(pending) };
      }
      if (bytes > totalBytes - reserveBytes || performance.now() >= deadline) {
        throw new InferenceError(
          'OUT_OF_MEMORY',
          `model ${model} needs ${formatBytes(bytes)} of ${kind}, ${formatBytes(Math.max(0, room))} of ${formatBytes(totalBytes)} are free beside the other models and ${formatBytes(reserveBytes)} in reserve; use a smaller one, or lower MEMORY_RESERVE_BYTES`,
        );
      }
      await sleep(pollMs, undefined, { signal });
    }
  }
}
