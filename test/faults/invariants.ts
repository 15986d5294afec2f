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
  readonly client: Pick<ReturnType<typeof createClient>, 'lLen' | 'zCard' | 'hGetAll'>;
  readonly receiver: Pick<FaultyReceiver, 'notes'>;
  /** Folder of the storage. */
  readonly files: string;
  readonly settleMs: number;
}

/** Waits until nothing moves, then checks the lists, the files and the caller's notes. @returns the violations */
export async function checkStorm({ jobs, client, receiver, files, settleMs }: Aftermath): Promise<readonly string[]> {
  const held = async () => {
    const sets = ['leases', 'delayed', 'outbox', 'users:sdxl', 'users:wan', 'dead', 'dead-callbacks'];
    const sizes = await Promise.all([
      ...['sdxl_queue', 'wan_queue'].map(async (list) => [list, await client.lLen(list)] as const),
      ...sets.map(async (set) => [set, await client.zCard(`darkroom:${set}`)] as const),
    ]);
    return sizes.flatMap(([name, size]) => (size > 0 ? [`${name} still holds ${size}`] : []));
  };
  const until = Date.now() + settleMs;
  let violations = await held();
  while (violations.length > 0 && Date.now() < until) {
    await sleep(200);
    violations = await held();
  }

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
  return found;
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
