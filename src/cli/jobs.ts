import { Command, Option } from 'commander';
import { readBridgeConfig } from '../config/bridge-config.js';
import { InferenceError } from '../errors.js';
import { type CallbackBody, failedBody } from '../queue-bridge/callback/callback-body.js';
import { callbackMessage } from '../queue-bridge/callback/callback-message.js';
import type { JobQueue, JobState, Replayed } from '../queue-bridge/queue/job-queue.js';
import { type JournalFields, readableFields, shownFields } from '../queue-bridge/queue/journal-fields.js';
import { openQueue } from '../queue-bridge/queue/open-queue.js';
import { count } from './options/parse-option.js';
import { say } from './output/say.js';

const STATES: readonly JobState[] = ['waiting', 'delayed', 'leased', 'completed', 'failed', 'dead', 'cancelled'];
/** States in which the list shows why the last attempt ended. */
const TROUBLED: readonly string[] = ['waiting', 'delayed', 'failed', 'dead'] satisfies readonly JobState[];
/** Longest wait for the store, in ms: a person waits for the answer. */
const PATIENCE_MS = 5000;
const MAX_SHOWN_CHARACTERS = 200;

export function createJobsCommand(): Command {
  const jobs = new Command('jobs').description(
    'manage the jobs of the bridge; REDIS_URL or UPSTASH_REDIS_REST_URL names the queue',
  );
  jobs
    .command('list')
    .description('show counts and jobs, newest first')
    .addOption(new Option('--state <state>', 'only jobs in this state').choices(STATES))
    .option('--limit <n>', 'largest number of jobs', count, 50)
    .option('--json', 'print JSON')
    .action(({ state, limit, json }: { state?: JobState; limit: number; json?: boolean }) =>
      withQueue((queue) => list(queue, limit, state, json)),
    );
  jobs
    .command('show')
    .description('show the journal of a job, with its payload')
    .argument('<id>', 'id of the job')
    .action((id: string) => withQueue((queue) => show(queue, id)));
  jobs
    .command('cancel')
    .description('cancel jobs: waiting ones at once, running ones after their current step, others when they arrive')
    .argument('<id...>', 'ids of the jobs')
    .action((ids: readonly string[]) =>
      withQueue(async (queue) => {
        for (const id of ids) say(`${id} ${CANCELLED[await queue.cancel(id, cancelledBody(id))]}`);
      }),
    );
  jobs
    .command('replay')
    .description('run jobs again that did not complete, and repeat the callback of completed ones')
    .argument('[id...]', 'ids of the jobs')
    .option('--callback', 'repeat the callback of every job, also of jobs that did not complete')
    .option('--dead', 'all jobs that used up their attempts')
    .option('--dead-callbacks', 'all callbacks that were given up')
    .action((ids: readonly string[], options: ReplayOptions) => withQueue((queue) => replay(queue, ids, options)));
  jobs
    .command('dead')
    .description('list dead jobs, dead callbacks, and payloads without a usable id')
    .option('--limit <n>', 'largest number of each', count, 50)
    .option('--json', 'print JSON')
    .action(({ limit, json }: { limit: number; json?: boolean }) => withQueue((queue) => dead(queue, limit, json)));
  return jobs;
}

async function withQueue(use: (queue: JobQueue) => Promise<void>): Promise<void> {
  const queue = openQueue(readBridgeConfig(), PATIENCE_MS);
  if (queue.kind === 'memory') {
    throw new InferenceError('INVALID_REQUEST', 'no queue: set REDIS_URL, or UPSTASH_REDIS_REST_URL and its token');
  }
  try {
    await use(queue);
  } finally {
    await queue.close();
  }
}

async function list(queue: JobQueue, limit: number, state?: JobState, json?: boolean): Promise<void> {
  const [counts, jobs] = [await queue.counts(), await queue.list(limit, state)];
  if (json) return say(JSON.stringify({ counts, jobs: jobs.map(shownFields) }, null, 2));
  say(
    Object.entries(counts)
      .map(([what, n]) => `${n} ${what.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`)
      .join(', '),
  );
  for (const job of jobs) {
    const { id = '', state: at = '', type = '', user = '', attempts = '0', created_at, cb } = job;
    const callback = cb === undefined ? '' : `callback ${cb}`;
    const row = [
      id,
      at.padEnd(9),
      type.padEnd(21),
      `${attempts} tried`,
      time(created_at),
      user,
      callback,
      problemOf(job),
    ];
    say(row.filter((cell) => cell !== '').join('  '));
  }
}

/** Why a job failed or waits. One that runs or completed has got over the error of an earlier attempt. */
function problemOf(job: JournalFields): string {
  const { state = '', last_error = '' } = job;
  if (!TROUBLED.includes(state)) return '';
  if (state !== 'failed') return last_error;
  const { callback } = readableFields(job) as { readonly callback?: Partial<CallbackBody> };
  return callback?.error_message || last_error;
}

async function show(queue: JobQueue, id: string): Promise<void> {
  const fields = await queue.show(id);
  if (fields === undefined) throw new InferenceError('JOB_NOT_FOUND', `job "${id}" is not known to the queue`);
  say(JSON.stringify(readableFields(fields), null, 2));
}

interface ReplayOptions {
  readonly callback?: boolean;
  readonly dead?: boolean;
  readonly deadCallbacks?: boolean;
}

async function replay(queue: JobQueue, ids: readonly string[], options: ReplayOptions): Promise<void> {
  const letters = await queue.deadLetters(100_000);
  const runs = [...ids, ...(options.dead ? letters.jobs : [])];
  const run = async (id: string, isCallback: boolean) => {
    const replayed = await queue.replay(id, isCallback);
    say(`${id} ${REPLAYED[replayed]}`);
    if (replayed === 'unknown') process.exitCode = 1;
  };
  for (const id of runs) await run(id, options.callback ?? false);
  for (const id of options.deadCallbacks ? letters.callbacks : []) await run(id, true);
}

async function dead(queue: JobQueue, limit: number, json?: boolean): Promise<void> {
  const letters = await queue.deadLetters(limit);
  if (json) return say(JSON.stringify(letters, null, 2));
  for (const id of letters.jobs) say(`job       ${id}  ${(await queue.show(id))?.last_error ?? ''}`);
  for (const id of letters.callbacks) say(`callback  ${id}  ${(await queue.show(id))?.cb_error ?? ''}`);
  for (const record of letters.usage) say(`usage     ${record}`);
  for (const record of letters.rejected) {
    const { problem, rejected_at, payload } = JSON.parse(record) as Readonly<Record<string, string>>;
    say(`payload   ${rejected_at}  ${problem}: ${JSON.stringify(payload?.slice(0, MAX_SHOWN_CHARACTERS))}`);
  }
}

const CANCELLED = {
  cancelled: 'was cancelled',
  asked: 'is running and ends after its step',
  noted: 'has not come yet and ends when it comes',
  ended: 'had ended before',
} as const;

const REPLAYED: Readonly<Record<Replayed, string>> = {
  runs: 'runs again',
  'calls back': 'is called back again',
  unknown: 'is not known',
  'not ended': 'has not ended yet',
};

function cancelledBody(id: string): string {
  const reason = 'CANCELLED';
  return failedBody(id, { reason, message: callbackMessage({ reason, message: 'the job was cancelled' }) });
}

function time(ms: string | undefined): string {
  return ms === undefined ? '' : new Date(Number(ms)).toISOString();
}
