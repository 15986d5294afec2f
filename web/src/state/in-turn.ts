import { Semaphore } from '../../../src/std/semaphore';

/** A browser opens six connections to one address; two stay free for what the user does. */
const downloads = new Semaphore(4);

/** Runs at most four of the given tasks at a time, in their order. */
export function inTurn<T>(task: () => Promise<T>): Promise<T> {
  return downloads.run(task);
}
