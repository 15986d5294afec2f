/**
 * npm run test:faults -- [--seed 1] [--rounds 3] [--jobs 150] [--kills 60]
 *
 * Each round has the next seed; one that fails is run again by its seed with --rounds 1.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { runStorm } from './storm.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    jobs: { type: 'string', default: '150' },
    kills: { type: 'string', default: '60' },
  },
});
const say = (line: string) => process.stdout.write(`${line}\n`);
const folder = await mkdtemp(join(tmpdir(), 'darkroom-faults-'));
try {
  const models = {
    sdxl: await writeTinySdxl(join(folder, 'sdxl')),
    wan: await writeSyntheticWan(join(folder, 'wan'), 'wan-tiny'),
  };
  for (let round = 0; round < Number(values.rounds); round += 1) {
    const seed = Number(values.seed) + round;
    say(`seed ${seed}: ${values.jobs} jobs, ${values.kills} kills`);
    const { violations, late, callbacks, seconds } = await runStorm({
      seed,
      jobs: Number(values.jobs),
      kills: Number(values.kills),
      settleMs: 60_000,
      models,
      say,
    });
    say(`seed ${seed}: ${callbacks} callbacks, ${seconds} s, ${violations.length} violations`);
    for (const finding of [...violations, ...late]) say(`  ${finding}`);
    if (violations.length + late.length > 0) process.exitCode = 1;
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
