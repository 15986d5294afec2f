import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import type { DeviceMemory } from '../runtime/device-memory.js';
import { formatBytes } from '../std/format-bytes.js';

export interface MemoryLedgerOptions {
  /** Measures the memory now. Called for every decision. */
  readonly measure: () => Promise<DeviceMemory>;
  /** Memory that always stays free, in bytes. */
  readonly reserveBytes: number;
  /** Time that a model waits for room, in ms. Default 20 s: one run and release of a text encoder. */
  readonly waitMs?: number;
  /** Time between two measurements, in ms. Default 0.5 s. */
  readonly pollMs?: number;
}

/** Room that was granted to a model which does not fill it yet. */
export interface Grant {
  /** Call it when the model is loaded or given up: from then on a measurement includes it. */
  settle(): void;
}

const WAIT_MS = 20_000;
const POLL_MS = 500;

/** Decides if an on-demand model fits beside the loaded ones. */
export class MemoryLedger {
  readonly #options: MemoryLedgerOptions;
  readonly #pending = new Set<{ readonly bytes: number }>();

  constructor(options: MemoryLedgerOptions) {
    this.#options = options;
  }

  /**
   * Waits until there is room.
   * @param bytes peak memory of the model
   * @throws InferenceError OUT_OF_MEMORY with the needed and the free memory; at once if the model can never fit
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
