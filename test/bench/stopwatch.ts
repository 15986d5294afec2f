import { readFile, writeFile } from 'node:fs/promises';

/** Seconds of one phase. */
export interface Lap {
  /** User and system, of the whole process. */
  readonly cpu: number;
  readonly wall: number;
}

/** Every call gives what passed since the one before. */
export function stopwatch(): () => Lap {
  let cpu = process.cpuUsage();
  let wall = performance.now();
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    const spent = { cpu: (user + system) / 1e6, wall: (performance.now() - wall) / 1000 };
    cpu = process.cpuUsage();
    wall = performance.now();
    return spent;
  };
}

export function sum(laps: readonly Lap[]): Lap {
  return laps.reduce((all, { cpu, wall }) => ({ cpu: all.cpu + cpu, wall: all.wall + wall }), { cpu: 0, wall: 0 });
}

/** Of the CPU seconds. */
export function median(laps: readonly Lap[]): Lap {
  const sorted = [...laps].sort((a, b) => a.cpu - b.cpu);
  return sorted[Math.floor(sorted.length / 2)] ?? { cpu: Number.NaN, wall: Number.NaN };
}

export function row(what: string, { cpu, wall }: Lap): void {
  print(`${what.padEnd(20)}  ${cpu.toFixed(3)} CPU s, ${wall.toFixed(3)} s`);
}

/** Of this process. */
export async function memoryRow(): Promise<void> {
  const [resident, peak] = [await residentMemory('VmRSS'), await residentMemory('VmHWM')].map(
    (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`,
  );
  print(`resident, peak        ${resident}, ${peak}`);
}

/** Resident memory of this process in bytes: now (VmRSS), at its peak (VmHWM), or now without files (RssAnon). */
export async function residentMemory(field: 'VmRSS' | 'VmHWM' | 'RssAnon'): Promise<number> {
  const status = await readFile('/proc/self/status', 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024;
}

/** Begins a new peak. https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html */
export function beginNewPeak(): Promise<void> {
  return writeFile('/proc/self/clear_refs', '5');
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One line: two decimals below ten, one above. */
export function figure(what: string, value: number, unit: string, note = ''): void {
  print(`${what.padEnd(58)} ${value.toFixed(value < 10 ? 2 : 1)} ${unit} ${note}`.trimEnd());
}
