import { type Lane, type LaneTurn, lanes } from './job-queue.js';

/** Waiting jobs of a process: lanes share by weight, users take turns, a user's jobs go in the order they came. */
export class FairLines {
  /** Places of waiting jobs by user, users in turn. */
  readonly #users: Readonly<Record<Lane, Map<string, Map<string, number>>>> = { sdxl: new Map(), wan: new Map() };
  /** How far each lane has come. */
  readonly #passes: Record<Lane, number> = { sdxl: 0, wan: 0 };
  #floor = 0;

  /** Lanes in which a job waits. */
  get waiting(): readonly Lane[] {
    return lanes.filter((lane) => this.#users[lane].size > 0);
  }

  get size(): number {
    const lines = lanes.flatMap((lane) => [...this.#users[lane].values()]);
    return lines.reduce((sum, line) => sum + line.size, 0);
  }

  /** @param place of the job among its user's: the lower the sooner */
  enter(lane: Lane, user: string, id: string, place: number): void {
    const line = this.#users[lane].get(user) ?? new Map<string, number>();
    line.set(id, place);
    this.#users[lane].set(user, line);
  }

  leave(lane: Lane, user: string, id: string): void {
    const line = this.#users[lane].get(user);
    line?.delete(id);
    if (line?.size === 0) this.#users[lane].delete(user);
  }

  /** Takes the next job of these lanes. */
  next(turns: readonly LaneTurn[]): { readonly id: string; readonly turn: LaneTurn } | undefined {
    let turn: LaneTurn | undefined;
    let pass = 0;
    for (const candidate of turns) {
      const own = Math.max(this.#floor, this.#passes[candidate.lane]);
      if (this.#users[candidate.lane].size === 0 || (turn !== undefined && own >= pass)) continue;
      turn = candidate;
      pass = own;
    }
    if (turn === undefined) return undefined;
    this.#floor = pass;
    this.#passes[turn.lane] = pass + 1 / turn.weight;
    const users = this.#users[turn.lane];
    const [user = '', line = new Map<string, number>()] = users.entries().next().value ?? [];
    const [id = ''] = [...line].reduce((first, entry) => (entry[1] < first[1] ? entry : first));
    line.delete(id);
    // The user's next turn comes after everybody else's.
    users.delete(user);
    if (line.size > 0) users.set(user, line);
    return { id, turn };
  }
}
