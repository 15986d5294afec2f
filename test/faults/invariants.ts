import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { createClient } from 'redis';
import type { StormJob } from './jobs.js';
import type { FaultyReceiver, Note } from './receiver.js';

export interface Aftermath {
  readonly jobs: readonly StormJob[];
  readonly client: Pick<ReturnType<typeof createClient>, 'lLen' | 'zCard' | 'get'>;
  readonly receiver: Pick<FaultyReceiver, 'notes'>;
  /** Folder of the storage. */
  readonly files: string;
  /** Time without any change after which what is left counts as lost, in ms. */
  readonly settleMs: number;
}

/** What a storm left behind. */
export interface Findings {
  /** Broken promises. */
  readonly violations: readonly string[];
  /** Jobs that still moved when the wait ended: the machine was too slow to tell. */
  readonly late: readonly string[];
}

/** The wait ends after so many times `settleMs`, even while something moves. */
const MAX_SETTLE_TIMES = 5;

/**
 * Waits until every job has ended, or nothing has changed for `settleMs`: a job that moves is late, one that does not is lost. Then
 * checks the lists, the files and the caller's notes.
 */
export async function checkStorm({ jobs, client, receiver, files, settleMs }: Aftermath): Promise<Findings> {
  const held = async () => {
    const sets = ['leases', 'delayed', 'outbox', 'users:sdxl', 'users:wan', 'dead', 'dead-callbacks'];
    const sizes = await Promise.all([
      ...['sdxl_queue', 'wan_queue'].map(async (list) => [list, await client.lLen(list)] as const),
      ...sets.map(async (set) => [set, await client.zCard(`darkroom:${set}`)] as const),
    ]);
    return sizes.flatMap(([name, size]) => (size > 0 ? [`${name} still holds ${size}`] : []));
  };
  // Everything that moves while a job is worked on: lists, callbacks, and the progress of each job.
  const snapshot = async (lists: readonly string[]) => {
    const ids = jobs.flatMap(({ id }) => id ?? []);
    const progress = await Promise.all(ids.map((id) => client.get(`darkroom:progress:${id}`)));
    return JSON.stringify([lists, receiver.notes.length, progress]);
  };
  const startedAt = Date.now();
  let left = await held();
  let last = await snapshot(left);
  let changedAt = Date.now();
  while (left.length > 0 && Date.now() - changedAt < settleMs && Date.now() - startedAt < MAX_SETTLE_TIMES * settleMs) {
    await sleep(200);
    left = await held();
    const now = await snapshot(left);
    if (now !== last) changedAt = Date.now();
    last = now;
  }
  const stillMoves = left.length > 0 && Date.now() - changedAt < settleMs;
  if (stillMoves) {
    const seconds = Math.round((Date.now() - startedAt) / 1000);
    return { violations: [], late: left.map((what) => `late: ${what} after ${seconds} s, and still moves`) };
  }
  const violations = left.map((what) => `lost: ${what}, and nothing has changed for ${Math.round(settleMs / 1000)} s`);

  const rejected = await client.lLen('darkroom:rejected');
  const wanted = jobs.filter((job) => job.wanted === 'rejected').length;
  // A push whose answer was lost with Redis was repeated.
  const most = 2 * wanted;
  const found = [...violations];
  if (rejected < wanted || rejected > most) found.push(`${rejected} payloads were rejected, not ${wanted}`);
  const hashes = new Map<string, string>();
  for (const job of jobs) {
    if (job.id === undefined) continue;
    const notes = receiver.notes.filter(({ body }) => body.job_id === job.id);
    found.push(...callbackProblems(job, notes).map((problem) => `${job.id}: ${problem}`));
    found.push(...(await fileProblems(job, notes, files, hashes)).map((problem) => `${job.id}: ${problem}`));
  }
  const known = new Set(jobs.map(({ id }) => id));
  for (const { body } of receiver.notes) if (!known.has(body.job_id)) found.push(`${body.job_id}: nobody pushed it`);
  return { violations: found, late: [] };
}

function callbackProblems({ wanted }: StormJob, notes: readonly Note[]): readonly string[] {
  const isEnd = ({ body }: Note) => body.status !== 'processing';
  const ends = notes.filter(isEnd);
  const problems: string[] = [];
  const distinct = new Set(ends.map(({ webhookId, raw }) => `${webhookId} ${raw}`));
  if (distinct.size !== 1) problems.push(`${distinct.size} different terminal callbacks`);
  if (!ends.some(({ isTaken }) => isTaken)) problems.push('no terminal callback was delivered');
  const status = ends[0]?.body.status;
  if (status !== wanted) problems.push(`ended ${status}, not ${wanted}: ${ends[0]?.body.error_message}`);
  const firstEnd = notes.findIndex(isEnd);
  if (notes.slice(firstEnd).some((note) => !isEnd(note))) problems.push('processing after the end');
  return problems;
}

/** @param hashes of the first file of every recipe so far */
async function fileProblems(
  { id = '', type, user, recipe, wanted }: StormJob,
  notes: readonly Note[],
  files: string,
  hashes: Map<string, string>,
): Promise<readonly string[]> {
  const folder = join(files, type, user, id);
  const names = (await readdir(folder).catch(() => [])).sort();
  if (wanted === 'failed') return names.length === 0 ? [] : ['files of a job that failed'];
  const end = notes.find(({ body }) => body.status === 'completed');
  const told = (end?.body.metadata.files ?? []) as readonly { readonly url: string; readonly sha256: string }[];
  const problems: string[] = [];
  const toldNames = told.map(({ url }) => fileURLToPath(url).slice(folder.length + 1)).sort();
  if (toldNames.join() !== names.join()) problems.push(`files ${names}, told ${toldNames}`);
  for (const [i, { url, sha256 }] of told.entries()) {
    const bytes = await readFile(fileURLToPath(url)).catch(() => Buffer.alloc(0));
    if (createHash('sha256').update(bytes).digest('hex') !== sha256) problems.push(`${url} is not what was told`);
    // The same seed gives the same image, however often it is generated. Videos are encoded with several threads, so they differ.
    const name = `${recipe} ${i}`;
    if (type.startsWith('video')) continue;
    if (sha256 !== (hashes.get(name) ?? sha256)) problems.push(`${url} differs from another of ${recipe}`);
    hashes.set(name, sha256);
  }
  return problems;
}
