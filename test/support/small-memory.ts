import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Engine } from '../../src/engine/engine.js';
import type { Work } from '../../src/engine/messages.js';

/**
 * Makes a device with little memory of an engine process: it may grow by so many bytes of address space and no more. What the
 * process allocates beyond that fails as on a full device. Linux only.
 */
export function limitMemory<W extends Work>({ pid }: Engine<W>, growthBytes: number): void {
  const kilobytes = Number(/^VmSize:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  execFileSync('prlimit', ['--pid', String(pid), `--as=${Math.round(kilobytes * 1024 + growthBytes)}:unlimited`]);
}

/** Takes the limit away. */
export function unlimitMemory<W extends Work>({ pid }: Engine<W>): void {
  execFileSync('prlimit', ['--pid', String(pid), '--as=unlimited:unlimited']);
}
