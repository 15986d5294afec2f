import type { BridgeConfig } from '../../config/bridge-config.js';
import type { JobQueue, Replayed } from '../../queue-bridge/queue/job-queue.js';
import type { JournalFields } from '../../queue-bridge/queue/journal-fields.js';
import { openQueue } from '../../queue-bridge/queue/open-queue.js';
import type { QueuedJob, QueueOperations } from '../../web/queue-operations.js';

/** Longest wait for the store, in ms: a person waits for the answer. */
const PATIENCE_MS = 5000;
/** Rows of each table of the page. */
const MOST = 50;

const REPLAYED: Readonly<Record<Replayed, string>> = {
  runs: 'runs again',
  'calls back': 'is called back again',
  unknown: 'is not known',
  'not ended': 'has not ended yet',
};

export interface OpenQueueOperations {
  readonly operations: QueueOperations;
  close(): Promise<void>;
}

/** Opens the queue that the configuration names, for the page; undefined if it names none. */
export function openQueueOperations(config: BridgeConfig): OpenQueueOperations | undefined {
  if (config.REDIS_URL === undefined && config.UPSTASH_REDIS_REST_URL === undefined) return undefined;
  const queue = openQueue(config, PATIENCE_MS);
  return { operations: queueOperations(queue), close: () => queue.close() };
}

export function queueOperations(queue: JobQueue): QueueOperations {
  const jobsOf = async (ids: readonly string[]): Promise<readonly QueuedJob[]> => {
    const journals = await Promise.all(ids.map((id) => queue.show(id)));
    return journals.flatMap((journal) => (journal === undefined ? [] : [queuedJob(journal)]));
  };
  return {
    async overview() {
      const [counts, lines, leased, letters] = await Promise.all([
        queue.counts(),
        queue.lines(MOST),
        queue.list(MOST, 'leased'),
        queue.deadLetters(MOST),
      ]);
      return {
        counts: { ...counts },
        lines,
        leased: leased.map(queuedJob),
        dead: await jobsOf(letters.jobs),
        deadCallbacks: await jobsOf(letters.callbacks),
        rejected: letters.rejected.map((record) => {
          const { problem = '', rejected_at = '' } = JSON.parse(record) as Readonly<Record<string, string>>;
          return { problem, rejectedAt: rejected_at };
        }),
      };
    },
    async replay(id, callbackOnly) {
      return REPLAYED[await queue.replay(id, callbackOnly)];
    },
  };
}

function queuedJob({ id = '', state = '', type = '', user = '', ...rest }: JournalFields): QueuedJob {
  const { attempts = '0', created_at, worker, last_error, cb_error } = rest;
  return {
    id,
    state,
    type,
    user,
    attempts: Number(attempts),
    createdAt: created_at === undefined ? undefined : Number(created_at),
    worker: worker === '' ? undefined : worker,
    problem: cb_error ?? last_error,
  };
}
