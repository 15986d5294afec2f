import { computed, signal } from '@preact/signals';
import { ApiError, type Asset, isOffline, type JobEvent, type Metadata, post } from './api';
import { sleep } from './timing';
import { watchJob } from './watch-job';

export interface CurrentJob {
  readonly id: string;
  readonly state: 'starting' | 'queued' | 'loading' | 'running' | 'completed' | 'failed';
  /** What it does now, in words. */
  readonly doing: string;
  readonly fraction: number;
  readonly etaSeconds: number | undefined;
  readonly planned: Metadata | undefined;
  readonly preview: string | undefined;
  /** Text of the enhanced prompt so far. */
  readonly text: string;
  readonly metadata: Metadata | undefined;
  readonly assets: readonly Asset[];
  readonly error: string;
  /** Why no events come now; empty: they do. */
  readonly interruption: string;
  readonly isCancelling: boolean;
}

/** The job that the page shows. */
export const current = signal<CurrentJob | undefined>(undefined);

/** Its state alone, for what does not follow every step. */
export const currentState = computed(() => current.value?.state);

let abort = new AbortController();

const PHASES: Readonly<Record<string, string>> = {
  PHASE_ENCODE: 'Reading the prompt',
  PHASE_DENOISE: 'Drawing',
  PHASE_DECODE: 'Developing',
  PHASE_ENHANCE: 'Writing a better prompt',
};

function fresh(id: string): CurrentJob {
  return {
    id,
    state: 'starting',
    doing: 'Sending',
    fraction: 0,
    etaSeconds: undefined,
    planned: undefined,
    preview: undefined,
    text: '',
    metadata: undefined,
    assets: [],
    error: '',
    interruption: '',
    isCancelling: false,
  };
}

function change(id: string, changes: Partial<CurrentJob>): void {
  if (current.value?.id === id) current.value = { ...current.value, ...changes };
}

/** A new id for a job. The same id again attaches to the job, so a start can be repeated. */
function newId(): string {
  const random = crypto.getRandomValues(new Uint8Array(12));
  return `web-${[...random].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

/** Time between two tries to start a job while the server is offline, in ms. */
const START_DELAY_MS = 1000;

/**
 * Starts a job and watches it. While the server is offline, it tries again: the id makes sure that the job runs once.
 * @returns its id; undefined if it was refused or cancelled, which `current` says in words
 */
export async function startJob(request: Readonly<Record<string, unknown>>): Promise<string | undefined> {
  const id = newId();
  stopWatching();
  current.value = fresh(id);
  const isWanted = () => current.value?.id === id && !current.value.isCancelling;
  while (isWanted()) {
    try {
      await post('api/jobs', { ...request, jobId: id, previewsPerSecond: 2 });
      // Another job was started meanwhile; this one goes on by itself.
      if (current.value?.id !== id) return undefined;
      const wasCancelled = current.value.isCancelling;
      change(id, { state: 'queued', interruption: '' });
      if (wasCancelled) void cancelCurrent();
      void follow(id);
      return id;
    } catch (caught) {
      const error = ApiError.from(caught);
      if (!isOffline(error)) {
        const violations = error.violations.map(({ field, description }) => `${field} ${description}`);
        change(id, { state: 'failed', error: violations.length > 1 ? violations.join('; ') : error.message });
        return undefined;
      }
      change(id, { doing: 'Waiting for the server', interruption: error.message });
    }
    await sleep(START_DELAY_MS);
  }
  change(id, { state: 'failed', error: 'Cancelled.', interruption: '' });
  return undefined;
}

/** Watches a job that exists. */
export async function follow(id: string): Promise<void> {
  stopWatching();
  if (current.value?.id !== id) current.value = { ...fresh(id), state: 'queued', doing: 'Looking for the job' };
  const { signal: stopped } = abort;
  try {
    await watchJob(id, {
      signal: stopped,
      onEvent: (event) => apply(id, event),
      onInterruption: (error) => change(id, { interruption: error?.message ?? '' }),
    });
  } catch (caught) {
    const { reason, message } = ApiError.from(caught);
    const isGone = reason === 'JOB_NOT_FOUND';
    const words = isGone
      ? 'The server does not know this job any more: it was restarted, or evicted the job.'
      : message;
    change(id, { state: 'failed', error: words, interruption: '' });
  }
}

export function stopWatching(): void {
  abort.abort();
  abort = new AbortController();
}

export async function cancelCurrent(): Promise<void> {
  const id = current.value?.id;
  if (id === undefined) return;
  change(id, { isCancelling: true });
  // The start looks at it.
  if (current.value?.state === 'starting') return;
  try {
    await post(`api/jobs/${encodeURIComponent(id)}/cancel`, {});
  } catch (caught) {
    change(id, { isCancelling: false, interruption: ApiError.from(caught).message });
  }
}

function apply(id: string, event: JobEvent): void {
  const { queued, modelLoading, started, progress, preview, textDelta, completed, failed } = event;
  if (queued !== undefined) {
    const ahead = queued.position ?? 0;
    const doing = ahead === 0 ? 'Next in the queue' : `Waiting behind ${ahead} ${ahead === 1 ? 'job' : 'jobs'}`;
    change(id, { state: 'queued', doing, etaSeconds: undefined });
  } else if (modelLoading !== undefined) {
    const what = modelLoading.loras?.length ? 'Adding LoRAs to' : 'Loading';
    change(id, { state: 'loading', doing: `${what} ${modelLoading.model ?? 'the model'}` });
  } else if (started !== undefined) {
    change(id, { state: 'running', doing: 'Started', planned: started.metadata });
  } else if (progress !== undefined) {
    const { phase = '', step = 0, total = 0, fraction = 0, etaSeconds } = progress;
    const doing = `${PHASES[phase] ?? 'Working'}, step ${step} of ${total}`;
    change(id, { state: 'running', doing, fraction, etaSeconds });
  } else if (preview !== undefined) {
    change(id, { preview: `data:${preview.contentType};base64,${preview.image}` });
  } else if (textDelta !== undefined) {
    change(id, { text: `${current.value?.text ?? ''}${textDelta.text ?? ''}`, doing: PHASES.PHASE_ENHANCE ?? '' });
  } else if (completed !== undefined) {
    const { metadata, assets = [] } = completed;
    change(id, { state: 'completed', doing: 'Done', fraction: 1, metadata, assets, interruption: '' });
  } else if (failed !== undefined) {
    const { reason, message } = failed.error ?? {};
    change(id, { state: 'failed', error: reason === 'CANCELLED' ? 'Cancelled.' : (message ?? 'The job failed.') });
  }
}
