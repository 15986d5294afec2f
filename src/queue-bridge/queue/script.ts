import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const folder = new URL('./scripts/', import.meta.url);
const INCLUDE = /^-- @include (\S+\.lua)$/gm;

/** Order of a script's arguments behind the prefix, which is always ARGV[1]. The header of the script's file explains each one. */
export interface Signature {
  readonly arguments: readonly string[];
  /** Columns of the rows that follow the arguments. Omitted: no rows follow. */
  readonly columns?: readonly string[];
}

/** A Lua script and the hash that Redis knows it by. */
export interface Script extends Signature {
  readonly source: string;
  /** Hexadecimal SHA-1, for EVALSHA. */
  readonly sha1: string;
}

/** Value of a script argument. A flag is sent as 1 or 0. */
export type ScriptValue = string | number | boolean;

/** Reads `scripts/<name>.lua` with the files that it includes. Files are read at the start, so that a missing one fails there. */
export function loadScript(name: string, signature: Signature): Script {
  const source = withIncludes(readLua(`${name}.lua`), new Set());
  return { ...signature, source, sha1: createHash('sha1').update(source).digest('hex') };
}

/** Puts named arguments into the order of the script. */
export function scriptArguments(
  { arguments: names, columns = [] }: Signature,
  values: Readonly<Record<string, ScriptValue>>,
  rows: readonly Readonly<Record<string, ScriptValue>>[] = [],
): readonly string[] {
  const texts = (of: Readonly<Record<string, ScriptValue>>, order: readonly string[]) =>
    order.map((name) => textOf(of[name], name));
  return [...texts(values, names), ...rows.flatMap((row) => texts(row, columns))];
}

function textOf(value: ScriptValue | undefined, name: string): string {
  if (value === undefined) throw new Error(`the script argument ${name} is missing`);
  return typeof value === 'boolean' ? (value ? '1' : '0') : String(value);
}

/** Replaces `-- @include FILE` lines by the file, each file once. */
function withIncludes(lua: string, included: Set<string>): string {
  return lua.replaceAll(INCLUDE, (_, file: string) => {
    if (included.has(file)) return '';
    included.add(file);
    return withIncludes(readLua(file), included);
  });
}

function readLua(file: string): string {
  return readFileSync(new URL(file, folder), 'utf8');
}
