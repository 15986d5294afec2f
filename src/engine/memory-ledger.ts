import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import type { DeviceMemory } from '../runtime/device-memory.js';
import { formatBytes } from '../std/format-bytes.js';

export interface MemoryLedgerOptions {
  /** Measures the memory now. Called for every decision. */
  readonly measure: () => Promise<DeviceMemory>;
  /** Memory that an on-demand model leaves free, in bytes. */
  readonly reserveBytes: number;
  /** Time that a model waits for room, in ms. Default 20 s: one run and release of a text encoder. */
  readonly waitMs?: number;
  /** Time between two measurements, in ms. Default 0.5 s. */
  readonly pollMs?: number;
}

/** Room that was granted and is not filled yet. */
export interface Grant {
  /** Keeps only so many bytes of it: a measurement includes the rest, or it was given back. */
  keep(bytes: number): void;
  /** Call it when the model is loaded, or the job ended: from then on a measurement includes it. */
  settle(): void;
}

/** Memory that jobs need beside what their engine holds already, in bytes. */
export interface JobRoom {
  /** The most that they take. */
  readonly bytes: number;
  /** The least that they take, in small batches and tiles. */
  readonly leastBytes: number;
  /** Name of the device in messages: `cuda:0`. */
  readonly device: string;
  /** False where nothing else on the device works that could give memory back. */
  readonly mayWait: () => boolean;
}

const WAIT_MS = 20_000;
const POLL_MS = 500;

/** Decides what fits on one device: on-demand models and jobs beside the loaded engines. */
export class MemoryLedger {
  readonly #options: MemoryLedgerOptions;
  readonly #pending = new Set<{ bytes: number }>();
  #freeIdle: (() => Promise<boolean>) | undefined;

  constructor(options: MemoryLedgerOptions) {
    this.#options = options;
  }

  /** Sets what frees memory that an on-demand model keeps while nobody uses it; false if there was none. */
  onShortage(freeIdle: () => Promise<boolean>): void {
    this.#freeIdle = freeIdle;
  }

  /**
   * Waits until there is room for an on-demand model.
   * @param bytes peak memory of the model
   * @throws InferenceError OUT_OF_MEMORY with the needed and the free memory; at once if the model can never fit
   */
  async grant(model: string, bytes: number, signal?: AbortSignal): Promise<Grant> {
    const { reserveBytes, waitMs = WAIT_MS } = this.#options;
    const deadline = performance.now() + waitMs;
    for (;;) {
      const { kind, totalBytes, room } = await this.#look(reserveBytes, signal);
      if (bytes <= room) return this.#promise(bytes);
      if (bytes > totalBytes - reserveBytes || performance.now() >= deadline) {
        throw new InferenceError(
          'OUT_OF_MEMORY',
          `model ${model} needs ${formatBytes(bytes)} of ${kind}, ${formatBytes(Math.max(0, room))} of ${formatBytes(totalBytes)} are free beside the other models and ${formatBytes(reserveBytes)} in reserve; use a smaller one, or lower MEMORY_RESERVE_BYTES`,
        );
      }
      await this.#pause(signal);
    }
  }

  /**
   * Makes room for jobs: ends an idle on-demand model, and waits for what others give back. Jobs that would fit in small batches and
   * tiles are let through when the wait is over.
   * @throws InferenceError OUT_OF_MEMORY with the needed and the free memory
   */
  async grantJobs({ bytes, leastBytes, device, mayWait }: JobRoom, signal?: AbortSignal): Promise<Grant> {
    if (bytes <= 0) return this.#promise(0);
    const deadline = performance.now() + (this.#options.waitMs ?? WAIT_MS);
    for (;;) {
      const { kind, totalBytes, room } = await this.#look(0, signal);
      if (bytes <= room) return this.#promise(bytes);
      if (await this.#freeIdle?.()) continue;
      if (!mayWait() || performance.now() >= deadline) {
        if (leastBytes <= room) return this.#promise(Math.max(leastBytes, room));
        throw new InferenceError(
          'OUT_OF_MEMORY',
          `Insufficient VRAM for generation: the job needs at least ${formatBytes(leastBytes)} more of ${kind} on ${device}, ${formatBytes(Math.max(0, room))} of ${formatBytes(totalBytes)} are free beside what is loaded; request a smaller size or fewer frames`,
        );
      }
      await this.#pause(signal);
    }
  }

  async #look(
    reserveBytes: number,
    signal: AbortSignal | undefined,
  ): Promise<DeviceMemory & { readonly room: number }> {
    signal?.throwIfAborted();
    const memory = await this.#options.measure();
    const promised = [...this.#pending].reduce((sum, pending) => sum + pending.bytes, 0);
    return { ...memory, room: memory.freeBytes - promised - reserveBytes };
  }

  #promise(bytes: number): Grant {
    const pending = { bytes };
    this.#pending.add(pending);
    return {
      keep: (kept) => {
        pending.bytes = Math.min(pending.bytes, kept);
      },
      settle: () => this.#pending.delete(pending),
    };
  }

  async #pause(signal: AbortSignal | undefined): Promise<void> {
    await sleep(this.#options.pollMs ?? POLL_MS, undefined, { signal });
  }
}
