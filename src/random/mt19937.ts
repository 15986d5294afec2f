const SIZE = 624;
const SHIFT = 397;
const TWIST = 0x9908b0df;

/** The 32-bit Mersenne Twister. Matsumoto and Nishimura, 1998; constants as in the authors' mt19937ar.c. */
export class Mt19937 {
  readonly #state = new Uint32Array(SIZE);
  #next = SIZE;

  /** @param seed its low 32 bits are used */
  constructor(seed: number) {
    this.#state[0] = seed;
    for (let i = 1; i < SIZE; i += 1) {
      const last = this.#at(i - 1);
      this.#state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
  }

  /** The next uniform integer, 0 to 2^32 - 1. */
  uint32(): number {
    if (this.#next === SIZE) this.#refill();
    let y = this.#at(this.#next);
    this.#next += 1;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #refill(): void {
    for (let i = 0; i < SIZE; i += 1) {
      const y = (this.#at(i) & 0x80000000) | (this.#at((i + 1) % SIZE) & 0x7fffffff);
      this.#state[i] = this.#at((i + SHIFT) % SIZE) ^ (y >>> 1) ^ (y & 1 ? TWIST : 0);
    }
    this.#next = 0;
  }

  #at(i: number): number {
    return this.#state[i] ?? 0;
  }
}
