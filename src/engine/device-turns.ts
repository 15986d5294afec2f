import type { TurnPolicy } from '../device.js';

export interface DeviceTurnsOptions {
  readonly policy: Exclude<TurnPolicy, 'off'>;
  /**
   * Time that the device is kept free for an engine between two runs of a job, in ms: its next run would otherwise wait for a whole run
   * of another engine. Default: 20 with `fair`, 250 with `images-first`.
   */
  readonly graceMs?: number;
  /** Time after which an engine loses its turn, in ms: a hung one does not hold up the others. Default 60 s. */
  readonly holdLimitMs?: number;
}

/** One engine's part in the turns of a device. */
export interface TurnSeat {
  /** Asks for a turn. `grant` is called when it comes. */
  request(grant: () => void, makesVideo: boolean): void;
  /** Gives the turn back, or stops waiting. */
  end(): void;
  /** The engine's jobs ended: nothing is kept free for it. Its process died: what it has is given back. */
  leave(): void;
}

interface Seat {
  grant: (() => void) | undefined;
  makesVideo: boolean;
  /** Device time that its jobs used, in ms. One that was away starts with the least of the others. */
  usedMs: number;
  /** It has jobs that use the device. */
  isActive: boolean;
  endedAt: number;
}

const GRACE_MS = { fair: 20, 'images-first': 250 } as const;
const HOLD_LIMIT_MS = 60_000;

/**
 * Gives the engines of one device turns, one run of a network each: a denoising step, a decode of an image, a chunk of a video. `fair`:
 * the engine that used the device least goes first, so that short runs do not wait for as many long ones. `images-first`: engines that
 * make images go before those that make videos.
 */
export class DeviceTurns {
  readonly #options: DeviceTurnsOptions;
  readonly #seats = new Set<Seat>();
  #holder: Seat | undefined;
  #heldSince = 0;
  #holdTimer: NodeJS.Timeout | undefined;
  #graceTimer: NodeJS.Timeout | undefined;

  constructor(options: DeviceTurnsOptions) {
    this.#options = options;
  }

  join(): TurnSeat {
    const seat: Seat = { grant: undefined, makesVideo: false, usedMs: 0, isActive: false, endedAt: 0 };
    this.#seats.add(seat);
    return {
      request: (grant, makesVideo) => {
        // What it used before, alone or not, does not count.
        if (!seat.isActive) seat.usedMs = this.#leastUsed();
        Object.assign(seat, { grant, makesVideo, isActive: true });
        this.#next();
      },
      end: () => {
        seat.grant = undefined;
        this.#release(seat);
        this.#next();
      },
      leave: () => {
        Object.assign(seat, { grant: undefined, isActive: false });
        this.#release(seat);
        this.#next();
      },
    };
  }

  #release(seat: Seat): void {
    if (this.#holder !== seat) return;
    clearTimeout(this.#holdTimer);
    this.#holder = undefined;
    seat.endedAt = performance.now();
    seat.usedMs += seat.endedAt - this.#heldSince;
  }

  #next(): void {
    clearTimeout(this.#graceTimer);
    if (this.#holder !== undefined) return;
    const active = [...this.#seats].filter(({ isActive }) => isActive).sort((a, b) => this.#order(a, b));
    const best = active.find(({ grant }) => grant !== undefined);
    if (best === undefined) return;
    const graceLeft = this.#graceLeft(active.slice(0, active.indexOf(best)));
    if (graceLeft > 0) {
      this.#graceTimer = setTimeout(() => this.#next(), graceLeft).unref();
      return;
    }
    this.#holder = best;
    this.#heldSince = performance.now();
    this.#holdTimer = setTimeout(() => {
      this.#release(best);
      this.#next();
    }, this.#options.holdLimitMs ?? HOLD_LIMIT_MS).unref();
    const { grant } = best;
    best.grant = undefined;
    grant?.();
  }

  /** Time for which the device is still kept free for engines that go first and do not ask now, in ms. */
  #graceLeft(before: readonly Seat[]): number {
    const { policy, graceMs = GRACE_MS[policy] } = this.#options;
    return Math.max(0, ...before.map(({ endedAt }) => endedAt + graceMs - performance.now()));
  }

  #order(a: Seat, b: Seat): number {
    const byKind = this.#options.policy === 'images-first' ? Number(a.makesVideo) - Number(b.makesVideo) : 0;
    return byKind || a.usedMs - b.usedMs;
  }

  #leastUsed(): number {
    const used = [...this.#seats].flatMap(({ isActive, usedMs }) => (isActive ? [usedMs] : []));
    return used.length === 0 ? 0 : Math.min(...used);
  }
}
