import { createHash, randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { open, realpath, rename, stat, unlink } from 'node:fs/promises';
import { z } from 'zod';
import { InferenceError, listProblems } from '../../errors.js';
import { readOperatorJson } from '../../std/operator-file.js';
import { problemsOf } from '../../std/schema-problems.js';
import { scopes } from './caller.js';

/** Marks darkroom's tokens, so that scanners find one that was published by mistake. */
const PREFIX = 'dkr_';
const SECRET_BYTES = 32;
const MAX_TOKENS = 1000;
const MAX_FILE_BYTES = 1024 * MAX_TOKENS;
const ID_CHARACTERS = 8;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/;
/** A lock of another command that is older was left by one that died, in ms. */
const STALE_LOCK_MS = 10_000;

const limit = z.int().min(1).max(1_000_000_000).optional();
const time = z.iso.datetime({ offset: true });

const limitsSchema = z.strictObject({ jobs: limit, jobsPerMinute: limit, pixels: limit, frames: limit });

const entrySchema = z.strictObject({
  name: z.string().regex(NAME, 'must be 1 to 64 letters, digits, ".", "_" and "-", and begin with a letter or digit'),
  /** Hash of the token, in hexadecimal digits. A token is random and long, so nobody finds it by trying. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hexadecimal digits'),
  scopes: z.array(z.enum(scopes)).min(1),
  created: time,
  expires: time.optional(),
  revoked: time.optional(),
  limits: limitsSchema.default({}),
});

const fileSchema = z.strictObject({
  tokens: z
    .array(entrySchema)
    .max(MAX_TOKENS, `has more than ${MAX_TOKENS} entries; take revoked ones out`)
    // Otherwise one of the two entries of a token could be revoked and the other one not.
    .refine((tokens) => new Set(tokens.map(({ sha256 }) => sha256)).size === tokens.length, 'has a sha256 twice'),
});

/** A token as the file has it: its hash, not itself. Several tokens of one name share its jobs and limits. */
export type TokenEntry = Readonly<z.infer<typeof entrySchema>>;

export type NewToken = Pick<TokenEntry, 'name' | 'scopes' | 'expires' | 'limits'>;

/** Short name of one token in lists and for `tokens revoke`. */
export function tokenId({ sha256 }: Pick<TokenEntry, 'sha256'>): string {
  return sha256.slice(0, ID_CHARACTERS);
}

export function hashToken(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** @throws InferenceError INVALID_REQUEST with every fault of the file */
export async function readTokenFile(path: string): Promise<readonly TokenEntry[]> {
  const { tokens } = await readOperatorJson(path, fileSchema, { variable: 'TOKENS_FILE', maxBytes: MAX_FILE_BYTES });
  return tokens;
}

/**
 * Adds a token to the file, which is made if it is missing.
 * @returns the token itself, which is stored nowhere
 * @throws InferenceError INVALID_REQUEST for a bad name, or a file that cannot be used
 */
export async function addToken(path: string, token: NewToken): Promise<string> {
  const secret = `${PREFIX}${randomBytes(SECRET_BYTES).toString('base64url')}`;
  const sha256 = hashToken(secret).toString('hex');
  const parsed = entrySchema.safeParse({ ...token, sha256, created: new Date().toISOString() });
  if (!parsed.success) throw invalid(`the token has mistakes:\n${listProblems(problemsOf(parsed.error))}`);
  await change(path, (tokens) => [...tokens, parsed.data]);
  return secret;
}

/**
 * Revokes the token of an id, or every token of a name.
 * @returns the tokens that were in use until now
 * @throws InferenceError INVALID_REQUEST where the file has no such token
 */
export async function revokeTokens(path: string, nameOrId: string): Promise<readonly TokenEntry[]> {
  let revoked: readonly TokenEntry[] = [];
  await change(path, (tokens) => {
    const named = tokens.filter((entry) => entry.name === nameOrId || tokenId(entry) === nameOrId);
    if (named.length === 0) throw invalid(`no token has the name or id "${nameOrId}"; see: darkroom tokens list`);
    revoked = named.filter((entry) => entry.revoked === undefined);
    const now = new Date().toISOString();
    return tokens.map((entry) => (revoked.includes(entry) ? { ...entry, revoked: now } : entry));
  });
  return revoked;
}

/**
 * Replaces the file as a whole, so that a server never reads half of it. Its owner and mode stay, and so does a link to it. Commands
 * take turns: none undoes another one's change.
 */
async function change(named: string, edit: (tokens: readonly TokenEntry[]) => readonly TokenEntry[]): Promise<void> {
  const path = await realpath(named).catch(() => named);
  const unlock = await lock(`${path}.lock`);
  try {
    const before = await statOf(path);
    const tokens = edit(before === undefined ? [] : await readTokenFile(path));
    const checked = fileSchema.safeParse({ tokens });
    if (!checked.success) {
      throw invalid(`TOKENS_FILE ${path} would have mistakes:\n${listProblems(problemsOf(checked.error))}`);
    }
    const temporary = `${path}.${process.pid}.tmp`;
    const file = await open(temporary, 'w', 0o600);
    try {
      if (before !== undefined) {
        await file.chmod(before.mode & 0o777);
        // Only root may give a file away. Another user's file stays readable as far as its mode allows.
        await file.chown(before.uid, before.gid).catch(() => undefined);
      }
      await file.writeFile(`${JSON.stringify({ tokens }, null, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } finally {
    await unlock();
  }
}

/** @returns undefined where there is no such file */
async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw invalid(`the token file "${path}" cannot be read: ${(error as Error).message}`, error);
  }
}

async function lock(path: string): Promise<() => Promise<void>> {
  for (;;) {
    try {
      await (await open(path, 'wx', 0o600)).close();
      return () => unlink(path).catch(() => undefined);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw invalid(`the token file's folder cannot be written: ${(error as Error).message}`, error);
      }
      const { ctimeMs } = (await statOf(path)) ?? { ctimeMs: Number.POSITIVE_INFINITY };
      if (Date.now() - ctimeMs > STALE_LOCK_MS) await unlink(path).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

function invalid(message: string, cause?: unknown): InferenceError {
  return new InferenceError('INVALID_REQUEST', message, { cause });
}
