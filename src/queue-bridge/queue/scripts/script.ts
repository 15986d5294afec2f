import { createHash } from 'node:crypto';
import { prelude } from './prelude.js';

/** A Lua script and the hash that Redis knows it by. Its first argument is the prefix of the keys. */
export interface Script {
  readonly source: string;
  readonly sha1: string;
}

export function defineScript(body: string): Script {
  const source = prelude + body;
  return { source, sha1: createHash('sha1').update(source).digest('hex') };
}
