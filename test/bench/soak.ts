/**
 * npm run bench -- soak [--jobs 10000] [--at-once 16]
 *
 * Sends jobs to a server of the tiny model and prints the resident memory of the server and of its engine after each tenth. The first
 * tenth fills what is kept (JOB_RETENTION), so the growth counts from there.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DarkroomClient, generate } from '../../src/client/client.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { status, withServer } from './served.js';

const { values } = parseArgs({
  options: { jobs: { type: 'string', default: '10000' }, 'at-once': { type: 'string', default: '16' } },
});
const jobs = Number(values.jobs);
const atOnce = Number(values['at-once']);
const MIB = 2 ** 20;

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const sdxl = await writeTinySdxl(join(folder, 'sdxl'));
  await withServer(['--sdxl', sdxl, '--device', 'cpu'], {}, soak);
} finally {
  await rm(folder, { recursive: true });
}

async function soak(client: DarkroomClient): Promise<void> {
  let sent = 0;
  let ended = 0;
  let after: readonly [number, number] | undefined;
  const report = async () => {
    const { residentBytes, models } = await status(client);
    const now = [Number(residentBytes) / MIB, Number(models[0]?.residentBytes ?? 0) / MIB] as const;
    after ??= now;
    const cells = now.map((mib, i) => `${mib.toFixed(0)} MiB (${signed(mib - (after?.[i] ?? mib))})`);
    say(`${String(ended).padStart(6)} jobs: server ${cells[0]}, engine ${cells[1]}`);
  };
  const work = async () => {
    while (sent < jobs) {
      sent += 1;
      const request = { prompt: `a red circle ${sent}`, seed: BigInt(sent), width: 64, height: 64, steps: 1 };
      for await (const _ of generate(client, request));
      ended += 1;
      if (ended % Math.ceil(jobs / 10) === 0) await report();
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}

function signed(value: number): string {
  return `${value < 0 ? '-' : '+'}${Math.abs(value).toFixed(0)}`;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
