import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { promisify } from 'node:util';
import type { Device } from '../device.js';
import { visibleCard } from '../environment.js';

/** A driver that hangs must not hold up a prompt for longer. */
const SMI_TIMEOUT_MS = 5_000;

export interface DeviceMemory {
  readonly kind: 'VRAM' | 'memory';
  readonly totalBytes: number;
  /** Bytes that no process uses, less what loaded engines may grow by to their peaks. */
  readonly freeBytes: number;
}

/** The machine's memory that a loaded engine takes. */
export interface Resident {
  readonly residentBytes: number | undefined;
  readonly peakBytes: number | undefined;
}

/**
 * Measures the memory that a model on the device would take: the memory of an NVIDIA card as its driver reports it, else that of
 * the machine or its container. Engines keep the VRAM that they once took, so free VRAM stays free at their peaks.
 *
 * @param residents loaded engines on the device, which may grow to their peaks again
 * @param deviceId index of the card
 */
export async function measureMemory(
  device: Device,
  residents: readonly Resident[],
  deviceId = 0,
): Promise<DeviceMemory> {
  const card = device === 'cpu' ? undefined : await measureCard(deviceId);
  return card ?? measureMachine(residents);
}

/** Memory of an NVIDIA card, as its driver reports it; undefined without a card or an answer. */
export async function measureCard(deviceId = 0): Promise<DeviceMemory | undefined> {
  const query = [
    `--id=${visibleCard(deviceId)}`,
    '--query-gpu=memory.total,memory.free',
    '--format=csv,noheader,nounits',
  ];
  const answer = await promisify(execFile)('nvidia-smi', query, { timeout: SMI_TIMEOUT_MS }).catch(() => undefined);
  const [total, free] = (answer?.stdout.split('\n')[0] ?? '')
    .split(',')
    .map((mebibytes) => Number(mebibytes) * 2 ** 20);
  if (!total || free === undefined || !Number.isFinite(total + free)) return undefined;
  return { kind: 'VRAM', totalBytes: total, freeBytes: free };
}

async function measureMachine(residents: readonly Resident[]): Promise<DeviceMemory> {
  // 0 or more than there is where no limit is set. https://nodejs.org/docs/latest-v20.x/api/process.html#processconstrainedmemory
  const limit = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  const totalBytes = Math.min(limit, totalmem());
  const peaks = sum(residents.map(({ peakBytes = 0 }) => peakBytes));
  const growth = sum(residents.map(({ peakBytes = 0, residentBytes = 0 }) => Math.max(0, peakBytes - residentBytes)));
  const meminfo = await readFile('/proc/meminfo', 'utf8').catch(() => '');
  const available = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? Number.POSITIVE_INFINITY) * 1024;
  const freeBytes = Math.max(0, Math.min(totalBytes - peaks - process.memoryUsage.rss(), available - growth));
  return { kind: 'memory', totalBytes, freeBytes };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
