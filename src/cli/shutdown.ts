/** Time after which a shutdown that hangs is ended, beyond the time that draining may take, in ms. */
const GRACE_MS = 15_000;

/**
 * Runs `stop` on SIGTERM and SIGINT, then ends the process. A second signal ends it at once, and so does the bound: whatever hangs
 * must not keep a process that is to be replaced.
 * @param drainMs longest time that `stop` takes when nothing hangs
 * @returns `isStopping`: true after the first signal; `stop`: the same as a signal
 */
export function onShutdown(
  stop: () => Promise<void>,
  drainMs: number,
  graceMs = GRACE_MS,
): { readonly isStopping: () => boolean; readonly stop: () => Promise<never> } {
  let isStopping = false;
  const run = async (): Promise<never> => {
    if (isStopping) process.exit(1);
    isStopping = true;
    // Timers hold at most 2^31 - 1 ms.
    setTimeout(
      () => {
        process.stderr.write('darkroom: the shutdown hangs and was ended\n');
        process.exit(1);
      },
      Math.min(drainMs + graceMs, 2 ** 31 - 1),
    ).unref();
    await stop();
    process.exit(0);
  };
  process.on('SIGTERM', () => void run());
  process.on('SIGINT', () => void run());
  return { isStopping: () => isStopping, stop: run };
}
