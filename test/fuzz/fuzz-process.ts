/**
 * Fuzzes one parser in a process of its own.
 * Arguments: mutations PARSER SEED FROM COUNT, or bomb PARSER NAME. Sends a message for every input, with what was wrong with it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceError } from '../../src/errors.js';
import { seeded } from '../support/seeded.js';
import { bombs } from './bombs.js';
import { mutate } from './mutate.js';
import { type FuzzedParser, WrongAcceptance } from './parsers/parser.js';
import { parserNamed } from './parsers.js';

/** Seconds of CPU time: those of a clock depend on what else the machine does. Even these grow beside other work. */
const MAX_SECONDS = 5;
const MAX_GROWTH_BYTES = 500_000_000;

const [kind, name = '', ...rest] = process.argv.slice(2);
const parser = await parserNamed(name);
const folder = await mkdtemp(join(tmpdir(), 'darkroom-fuzz-'));
try {
  if (kind === 'bomb') {
    const bomb = bombs.find((one) => one.parser === name && one.name === rest[0]);
    if (bomb === undefined) throw new Error(`no bomb ${rest[0]}`);
    // Loads and compiles what the parser needs, so that only the bomb is measured.
    for (const bytes of await parser.seeds(folder)) await faultOf(parser, bytes, MAX_SECONDS);
    process.send?.({ input: 0, fault: await faultOf(parser, bomb.make(), MAX_SECONDS) });
  } else {
    const [seed = 1, from = 0, count = 0] = rest.map(Number);
    const seeds = await parser.seeds(folder);
    for (const [i, bytes] of seeds.entries()) {
      const fault = await parser.parse(bytes, folder).then(
        () => undefined,
        (error: unknown) => `seed ${i} is refused: ${String(error)}`,
      );
      if (fault !== undefined) process.send?.({ input: -1, fault });
    }
    for (let i = from; i < from + count; i += 1) {
      const random = seeded(seed * 1_000_003 + i);
      const fault = await faultOf(parser, mutate(random.pick(seeds), seeds, random), MAX_SECONDS);
      process.send?.({ input: i, fault });
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
process.disconnect?.();

/** What is wrong with how a parser took an input; undefined where it accepted or refused it as it should. */
async function faultOf(parser: FuzzedParser, bytes: Buffer, maxSeconds: number): Promise<string | undefined> {
  const memory = process.memoryUsage().rss;
  const before = process.cpuUsage();
  const error = await parser.parse(bytes, folder).then(
    () => undefined,
    (caught: unknown) => caught ?? new TypeError('nothing was thrown'),
  );
  const { user, system } = process.cpuUsage(before);
  const growth = Math.max(process.memoryUsage().rss, 1024 * process.resourceUsage().maxRSS) - memory;
  const seconds = (user + system) / 1e6;
  if (seconds > maxSeconds) return `took ${seconds.toFixed(1)} s`;
  if (growth > MAX_GROWTH_BYTES) return `grew by ${Math.round(growth / 1e6)} MB`;
  return error === undefined ? undefined : faultOfError(error);
}

function faultOfError(error: unknown): string | undefined {
  if (error instanceof WrongAcceptance) return `accepted ${error.message}`;
  for (let each: unknown = error; each instanceof Error; each = each.cause) {
    const isInternal = each instanceof InferenceError && each.reason === 'INTERNAL';
    if (
      isInternal ||
      [TypeError, ReferenceError, SyntaxError].some((type) => each instanceof type) ||
      /call stack|Invalid array|Invalid string/.test(each.message)
    ) {
      return `failed with ${each.stack ?? String(each)}`;
    }
  }
  return undefined;
}
