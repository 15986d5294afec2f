import { type DeviceMemory, measureCard } from '../../runtime/device-memory.js';
import { enginesOf, type ObservedServer } from './server-observer.js';

/** A measurement starts a program of the driver, so it is not repeated sooner, in ms. */
const FRESH_MS = 15_000;

/** Memory of the card, measured only where an engine may use one, and rarely. */
export class CardMemory {
  readonly #server: ObservedServer;
  #measured: Promise<DeviceMemory | undefined> = Promise.resolve(undefined);
  #measuredAt = Number.NEGATIVE_INFINITY;

  constructor(server: ObservedServer) {
    this.#server = server;
  }

  /** The last measurement; undefined without a card. */
  measure(): Promise<DeviceMemory | undefined> {
    if (!enginesOf(this.#server).some(({ device = 'cpu' }) => device !== 'cpu')) return Promise.resolve(undefined);
    if (performance.now() - this.#measuredAt >= FRESH_MS) {
      this.#measuredAt = performance.now();
      this.#measured = measureCard();
    }
    return this.#measured;
  }
}
