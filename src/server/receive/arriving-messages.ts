import type { InferenceError } from '../../errors.js';
import { type RequestBounds, refusalOf, tooLarge } from './request-bounds.js';
import { WireScan } from './wire-scan.js';

/** A compression flag and a length precede each message. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
export const PREFIX_BYTES = 5;

/**
 * Checks the messages of a call against their bounds while they arrive: one that is too large is refused by its announced length, one
 * of too many fields at the first field beyond the limit. The rest of such a message is never held.
 */
export class ArrivingMessages {
  readonly #bounds: RequestBounds;
  #prefixBytes = 0;
  #isCompressed = false;
  #length = 0;
  /** Bytes of the current message that have not arrived. */
  #left = 0;
  /** Absent for a compressed message, which is checked when it is inflated. */
  #scan: WireScan | undefined;

  constructor(bounds: RequestBounds) {
    this.#bounds = bounds;
  }

  /** @returns why the call is refused; nothing may be written after that */
  write(chunk: Uint8Array): InferenceError | undefined {
    for (let at = 0; at < chunk.length; ) {
      if (this.#left === 0) {
        const refusal = this.#onPrefix(chunk[at] ?? 0);
        if (refusal !== undefined) return refusal;
        at += 1;
        continue;
      }
      const part = chunk.subarray(at, at + this.#left);
      at += part.length;
      this.#left -= part.length;
      const problem = this.#scan?.write(part);
      if (problem !== undefined) return refusalOf(problem, this.#bounds);
    }
    return undefined;
  }

  #onPrefix(byte: number): InferenceError | undefined {
    if (this.#prefixBytes === 0) {
      this.#isCompressed = byte !== 0;
      this.#length = 0;
    } else {
      this.#length = this.#length * 256 + byte;
    }
    this.#prefixBytes += 1;
    if (this.#prefixBytes < PREFIX_BYTES) return undefined;
    this.#prefixBytes = 0;
    this.#left = this.#length;
    const { shape, maxBytes, maxFields } = this.#bounds;
    this.#scan = this.#isCompressed ? undefined : new WireScan(shape, maxFields, this.#length);
    return this.#length > maxBytes ? tooLarge(this.#length, maxBytes) : undefined;
  }
}
