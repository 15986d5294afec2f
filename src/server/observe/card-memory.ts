import { type DeviceMemory, measureCard } from '../../runtime/device-memory.js';

/** A measurement starts a program of the driver, so it is not repeated sooner, in ms. */
const FRESH_MS = 15_000;

/** Memory of the card, measured only where an engine may use one, and rarely. */
export class CardMemory {
  readonly #isUsed: () => boolean;
  #measured: Promise<DeviceMemory | undefined> = Promise.resolve(undefined);
  #measuredAt = Number.NEGATIVE_INFINITY;

  /** @param isUsed true if an engine runs on another device than the CPU */
  constructor(isUsed: () => boolean) {
    this.#isUsed = isUsed;
  }

  /** The last measurement; undefined without a card. */
  measure(): Promise<DeviceMemory | undefined> {
    if (!this.#isUsed()) return Promise.resolve(undefined);
    if (performance.now() - this.#measuredAt >= FRESH_MS) {
      this.#measuredAt = performance.now();
      this.#measured = measureCard();
    }
    return this.#measured;
  }
}
