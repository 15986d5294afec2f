import { InvalidArgumentError } from 'commander';

/** Parses a number. */
export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('must be a number.');
  return value;
}

/** Parses a number of things. */
export function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('must be a whole number above 0.');
  return value;
}

/** Parses a whole number that may be larger than a number holds. */
export function integer(text: string): bigint {
  if (!/^-?\d{1,19}$/.test(text)) throw new InvalidArgumentError('must be a whole number.');
  return BigInt(text);
}
