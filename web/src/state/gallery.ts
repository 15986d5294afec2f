import { signal } from '@preact/signals';
import { ApiError, get, type Job } from './api';
import { repeat, sleep } from './timing';

const PAGE = 100;
/** Jobs that are looked at for new ones. */
const NEWEST = 20;
const REFRESH_MS = 4000;

/** Ended jobs that are known so far, newest first. */
export const jobs = signal<readonly Job[]>([]);
export const nextPage = signal<string | undefined>('');
export const isLoading = signal(false);
export const galleryProblem = signal('');

interface Page {
  readonly jobs?: readonly Job[];
  readonly nextPageToken?: string;
}

const list = (size: number, token: string) =>
  get<Page>(`api/jobs?states=completed,failed,cancelled&pageSize=${size}&pageToken=${encodeURIComponent(token)}`);

/** Loads the next page; nothing happens while one is loading or when there is none. */
export async function loadMore(): Promise<void> {
  const token = nextPage.value;
  if (token === undefined || isLoading.value) return;
  isLoading.value = true;
  try {
    const page = await list(PAGE, token);
    jobs.value = merge(jobs.value, page.jobs ?? []);
    nextPage.value = page.nextPageToken || undefined;
    galleryProblem.value = '';
  } catch (caught) {
    galleryProblem.value = ApiError.from(caught).message;
  } finally {
    isLoading.value = false;
  }
}

/** Loads the first page, then adds jobs that end, as long as the signal is not aborted. */
export async function keepGallery(signal: AbortSignal): Promise<void> {
  await reload();
  await sleep(REFRESH_MS);
  await repeat(REFRESH_MS, signal, async () => {
    try {
      const { jobs: newest = [] } = await list(NEWEST, '');
      // More new jobs than one look shows, or another server: begin anew.
      const isConnected =
        newest.length < NEWEST || newest.some(({ jobId }) => jobs.value.some((job) => job.jobId === jobId));
      if (isConnected && newest.length > 0) jobs.value = merge(newest, jobs.value);
      else await reload();
      galleryProblem.value = '';
    } catch (caught) {
      galleryProblem.value = ApiError.from(caught).message;
    }
  });
}

async function reload(): Promise<void> {
  jobs.value = [];
  nextPage.value = '';
  await loadMore();
}

function merge(first: readonly Job[], second: readonly Job[]): readonly Job[] {
  const byId = new Map<string, Job>();
  for (const job of [...first, ...second]) if (!byId.has(job.jobId)) byId.set(job.jobId, job);
  return [...byId.values()];
}
