/**
 * A process that asks a server for its health and reads its memory while another one does something to it.
 * Not a thread: the attacker's memory must not hold it up.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { HealthClient } from '../../src/gen/grpc/health/v1/health.js';

export interface ProbeSource {
  readonly address: string;
  readonly pid: number;
}

/** What was seen since the last message. */
export interface Seen {
  /** Of each check, in ms. */
  readonly latencies: readonly number[];
  readonly peakBytes: number;
}

/** Between two checks, in ms. */
const PAUSE_MS = 5;

const { address, pid } = JSON.parse(process.argv[2] ?? '') as ProbeSource;
const health = new HealthClient(address, credentials.createInsecure());
let latencies: number[] = [];
let peakBytes = 0;

process.on('message', () => {
  process.send?.({ latencies, peakBytes } satisfies Seen);
  latencies = [];
  peakBytes = 0;
});

for (;;) {
  const asked = performance.now();
  await new Promise<void>((resolve, reject) =>
    health.check({ service: '' }, (error) => (error ? reject(error) : resolve())),
  );
  latencies.push(performance.now() - asked);
  const resident = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  peakBytes = Math.max(peakBytes, Number(resident) * 1024);
  await sleep(PAUSE_MS);
}
