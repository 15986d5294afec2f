import type { Seeded } from '../support/seeded.js';

/** Numbers at the borders of types and of common checks, as little-endian bytes. */
const NUMBERS: readonly Buffer[] = [
  0n,
  1n,
  2n,
  16n,
  255n,
  65_535n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
].map((value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
});
const TEXTS = [
  '-1',
  '0',
  '1e999',
  '9007199254740993',
  'null',
  'true',
  '[]',
  '{}',
  '""',
  '"\\ud800"',
  '[[[[',
  '\u0000',
  '}',
].map((text) => Buffer.from(text));
const MOST_CHANGES = 4;

/** A file with a few changes of bytes, numbers, texts and places. @param others files to take parts from */
export function mutate(bytes: Buffer, others: readonly Buffer[], random: Seeded): Buffer {
  let changed: Buffer = bytes;
  const changes = 1 + random.below(MOST_CHANGES);
  for (let i = 0; i < changes; i += 1) changed = change(changed, others, random);
  return changed;
}

function change(bytes: Buffer, others: readonly Buffer[], random: Seeded): Buffer {
  const at = random.below(bytes.length + 1);
  const length = random.below(random.chance(0.8) ? 16 : bytes.length + 1);
  const [before, after, rest] = [bytes.subarray(0, at), bytes.subarray(at), bytes.subarray(at + length)];
  switch (random.below(8)) {
    case 0: {
      const flipped = Buffer.from(bytes);
      if (at < flipped.length) flipped[at] = (flipped[at] ?? 0) ^ (1 << random.below(8));
      return flipped;
    }
    case 1: {
      const number = random.pick(NUMBERS).subarray(0, random.pick([1, 2, 4, 8]));
      return Buffer.concat([before, number, bytes.subarray(at + number.length)]);
    }
    case 2:
      return Buffer.concat([before, random.pick(TEXTS), random.chance(0.5) ? rest : after]);
    case 3:
      return Buffer.concat([before, rest]);
    case 4:
      return Buffer.concat([before, after.subarray(0, length), after]);
    case 5:
      return Buffer.from(before);
    case 6: {
      const other = random.pick(others);
      const from = random.below(other.length + 1);
      return Buffer.concat([before, other.subarray(from, from + length), rest]);
    }
    default:
      return Buffer.concat([before, Buffer.from(Array.from({ length: 8 }, () => random.below(256))), after]);
  }
}
