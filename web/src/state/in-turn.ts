/** A browser opens six connections to one address; two stay free for what the user does. */
const MAX_RUNNING = 4;

let running = 0;
const waiting: (() => void)[] = [];

/** Runs at most four of the given tasks at a time, in their order. */
export async function inTurn<T>(task: () => Promise<T>): Promise<T> {
  if (running >= MAX_RUNNING) await new Promise<void>((resolve) => waiting.push(resolve));
  running += 1;
  try {
    return await task();
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}
