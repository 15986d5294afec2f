import { Worker } from 'node:worker_threads';
import { killGroup } from './process-group.js';

const POLL_MS = 250;

/**
 * Ends this process and its programs when its parent ends, however that happened. Between runs the closed IPC channel shows it. During a
 * run native code blocks the main thread, so a worker thread watches, too.
 */
export function endWithParent(): void {
  process.once('disconnect', () => {
    killGroup(process);
    // Not the leader of a group.
    process.exit(0);
  });
  const parent = process.ppid;
  // An orphaned process gets a new parent id.
  const program = `setInterval(() => {
    if (process.ppid === ${parent}) return;
    try { process.kill(-process.pid, 'SIGKILL'); } catch { process.kill(process.pid, 'SIGKILL'); }
  }, ${POLL_MS});`;
  new Worker(program, { eval: true }).unref();
}
