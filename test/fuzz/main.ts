/**
 * npm run test:fuzz -- [--seed 1] [--from 0] [--count 3000] [--only PARSER]
 *
 * Gives every parser changed files and files that were made to cost much. A failure is run again by its seed, --only, --from and
 * --count 1.
 */
import { fork } from 'node:child_process';
import { parseArgs } from 'node:util';
import { bombs } from './bombs.js';
import { parsers } from './parsers.js';

/** A process that is silent for so long hangs in one input. */
const SILENCE_MS = 60_000;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
    count: { type: 'string', default: '3000' },
    only: { type: 'string' },
  },
});
const say = (line: string) => process.stdout.write(`${line}\n`);
const entry = new URL('./fuzz-process.js', import.meta.url);

/** Runs one process to its end. @returns what was wrong, by input */
function run(args: readonly string[]): Promise<ReadonlyMap<number, string>> {
  return new Promise((resolve) => {
    const faults = new Map<number, string>();
    const child = fork(entry, args, { stdio: ['ignore', 'inherit', 'pipe', 'ipc'] });
    let [last, errors] = [-1, ''];
    const watch = setTimeout(() => {
      faults.set(last + 1, 'hangs');
      child.kill('SIGKILL');
    }, SILENCE_MS);
    child.stderr?.on('data', (data: Buffer) => {
      errors = (errors + data.toString()).slice(-2_000);
    });
    child.on('message', ({ input, fault }: { input: number; fault?: string }) => {
      last = input;
      watch.refresh();
      if (fault !== undefined) faults.set(input, fault);
    });
    child.on('exit', (code, signal) => {
      clearTimeout(watch);
      if (code !== 0 && !faults.has(last + 1)) faults.set(last + 1, `ended the process (${code ?? signal}): ${errors}`);
      resolve(faults);
    });
  });
}

let failures = 0;
for (const name of parsers.filter((one) => values.only === undefined || one === values.only)) {
  const faults = await run(['mutations', name, values.seed, values.from, values.count]);
  for (const [input, fault] of faults) say(`${name}: seed ${values.seed}, input ${input} ${fault}`);
  failures += faults.size;
  const own = bombs.filter(({ parser }) => parser === name);
  for (const bomb of own) {
    for (const fault of (await run(['bomb', name, bomb.name])).values()) {
      say(`${name}: the bomb "${bomb.name}" ${fault}`);
      failures += 1;
    }
  }
  say(`${name}: seed ${values.seed}, ${values.count} changed files, ${own.length} bombs, ${faults.size} faults`);
}
if (failures > 0) process.exitCode = 1;
