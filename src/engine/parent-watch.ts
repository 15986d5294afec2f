import { Worker } from 'node:worker_threads';

const POLL_MS = 250;

/**
 * Ends this process when its parent ends, however that happened. The channel's end says so between runs; a thread of its own
 * sees it during one, when the main thread is blocked in native code.
 */
export function endWithParent(): void {
  process.once('disconnect', () => process.exit(0));
  const parent = process.ppid;
  // A process whose parent died gets another one.
  const program = `setInterval(() => {
    if (process.ppid !== ${parent}) process.kill(process.pid, 'SIGKILL');
  }, ${POLL_MS});`;
  new Worker(program, { eval: true }).unref();
}
