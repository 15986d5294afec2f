import type { LaneTurn, UserLine } from './job-queue.js';

/** Places of a user's waiting jobs, by id: the lower the sooner. */
type UserJobs = Map<string, number>;

/** Waiting jobs of a process: lanes share by weight, users take turns, and a user's jobs keep their order. */
export class FairQueue {
  /** Jobs of each lane by user, users in turn. */
  readonly #lanes = new Map<string, Map<string, UserJobs>>();
  /** Progress of each lane: the lane that is furthest behind is next. */
  readonly #passes = new Map<string, number>();
  #floor = 0;

  get size(): number {
    const users = [...this.#lanes.values()].flatMap((lane) => [...lane.values()]);
    return users.reduce((sum, jobs) => sum + jobs.size, 0);
  }

  /** Waiting jobs of each user over all lanes, most first. */
  lines(): readonly UserLine[] {
    const waiting = new Map<string, number>();
    for (const lane of this.#lanes.values()) {
      for (const [user, jobs] of lane) waiting.set(user, (waiting.get(user) ?? 0) + jobs.size);
    }
    return [...waiting]
      .map(([user, jobs]) => ({ user, waiting: jobs }))
      .sort((a, b) => b.waiting - a.waiting || (a.user < b.user ? -1 : 1));
  }

  /** True if a job of the lane waits. */
  has(lane: string): boolean {
    return this.#usersOf(lane).size > 0;
  }

  /** @param place of the job among its user's: the lower the sooner */
  add(lane: string, user: string, id: string, place: number): void {
    const users = this.#usersOf(lane);
    const jobs = users.get(user) ?? new Map<string, number>();
    jobs.set(id, place);
    users.set(user, jobs);
  }

  remove(lane: string, user: string, id: string): void {
    const users = this.#usersOf(lane);
    const jobs = users.get(user);
    jobs?.delete(id);
    if (jobs?.size === 0) users.delete(user);
  }

  /**
   * Takes the next job of these lanes.
   * @param serverOf the server that has a job
   */
  next(
    turns: readonly LaneTurn[],
    serverOf: (id: string) => string | undefined,
  ): { readonly id: string; readonly turn: LaneTurn } | undefined {
    let found: { readonly turn: LaneTurn; readonly user: string; readonly id: string } | undefined;
    let pass = 0;
    for (const turn of turns) {
      const own = Math.max(this.#floor, this.#passes.get(turn.lane) ?? 0);
      const job = turn.keeps
        ? this.#keptJob(turn.lane, (id) => serverOf(id) === turn.server)
        : this.#nextJob(turn.lane);
      if (job === undefined || (found !== undefined && own >= pass)) continue;
      found = { turn, ...job };
      pass = own;
    }
    if (found === undefined) return undefined;
    const { turn, user, id } = found;
    this.#floor = pass;
    this.#passes.set(turn.lane, pass + 1 / turn.weight);
    const users = this.#usersOf(turn.lane);
    const jobs = users.get(user) ?? new Map<string, number>();
    jobs.delete(id);
    // The user's next turn comes after everybody else's.
    users.delete(user);
    if (jobs.size > 0) users.set(user, jobs);
    return { id, turn };
  }

  /** The oldest job of the user whose turn it is. */
  #nextJob(lane: string): { readonly user: string; readonly id: string } | undefined {
    const [first] = this.#usersOf(lane);
    return first && { user: first[0], id: oldest(first[1]) };
  }

  /** The oldest job of those that a server may have. */
  #keptJob(lane: string, isKept: (id: string) => boolean): { readonly user: string; readonly id: string } | undefined {
    const kept = [...this.#usersOf(lane)].flatMap(([user, jobs]) =>
      [...jobs].flatMap(([id, place]) => (isKept(id) ? [{ user, id, place }] : [])),
    );
    return kept.sort((a, b) => a.place - b.place)[0];
  }

  #usersOf(lane: string): Map<string, UserJobs> {
    const users = this.#lanes.get(lane) ?? new Map<string, UserJobs>();
    this.#lanes.set(lane, users);
    return users;
  }
}

function oldest(jobs: UserJobs): string {
  const [id] = [...jobs].reduce((first, entry) => (entry[1] < first[1] ? entry : first));
  return id;
}
