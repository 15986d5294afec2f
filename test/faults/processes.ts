import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../../dist/src/cli/main.js', import.meta.url));
const mainFromSource = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
/** This file runs from the build and from the source. */
const program = import.meta.url.endsWith('.ts') ? mainFromSource : main;

/** A darkroom process that is restarted after every kill. */
export interface Program {
  readonly pid: number;
  /** Kills it with SIGKILL and restarts it. */
  crash(): Promise<void>;
  /** Stops it for a while, as a swapping machine or a debugger does. It continues without noticing. */
  pause(ms: number): void;
  /** Replaces it as a rolling update does: SIGTERM, its own end, and a new one. @returns the exit code */
  replace(): Promise<number | null>;
  stop(): Promise<void>;
}

/** @param log file that gets the log of every process. Omitted: none is kept */
export async function startProgram(args: readonly string[], env: NodeJS.ProcessEnv, log?: string): Promise<Program> {
  const output = log === undefined ? 'ignore' : openSync(log, 'a');
  const start = (): ChildProcess =>
    spawn(process.execPath, [program, ...args], { env, stdio: ['ignore', 'ignore', output] });
  let child = start();
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  return {
    get pid() {
      return child.pid ?? 0;
    },
    async crash() {
      await kill();
      child = start();
    },
    pause(ms) {
      const paused = child;
      paused.kill('SIGSTOP');
      setTimeout(() => paused.kill('SIGCONT'), ms);
    },
    async replace() {
      const ended = once(child, 'exit') as Promise<[number | null]>;
      child.kill('SIGTERM');
      const [code] = await ended;
      child = start();
      return code;
    },
    stop: kill,
  };
}

/** Process ids of a server's current engines. */
export function enginesOf(pid: number): Promise<readonly number[]> {
  return new Promise((resolve) => {
    execFile('pgrep', ['-P', String(pid), '-f', 'engine/(image|text)-process.js'], (_, stdout) => {
      resolve(stdout.split('\n').flatMap((line) => (line === '' ? [] : [Number(line)])));
    });
  });
}
