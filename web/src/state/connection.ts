import { signal } from '@preact/signals';
import { type About, ApiError, get, isOffline, type Model, type ServerStatus } from './api';
import { repeat } from './timing';

const POLL_MS = 3000;

export const about = signal<About | undefined>(undefined);
export const status = signal<ServerStatus | undefined>(undefined);
/** Models with their LoRAs. */
export const models = signal<readonly Model[]>([]);
/** Why the server cannot be used now, in words; empty: it can. */
export const problem = signal('');
/** Rises each time the server is back. */
export const reconnects = signal(0);

/** Asks for the state of the server as long as the page lives. */
export function pollServer(): Promise<void> {
  return repeat(POLL_MS, new AbortController().signal, async () => {
    try {
      about.value ??= await get<About>('api/about');
      const wasLost = problem.value !== '' || status.value === undefined;
      const now = await get<ServerStatus>('api/status');
      const isOther = (now.uptimeSeconds ?? 0) < (status.value?.uptimeSeconds ?? 0);
      const states = (of: ServerStatus | undefined) =>
        JSON.stringify(of?.models?.map(({ name, state }) => [name, state]));
      if (wasLost || isOther || states(now) !== states(status.value)) {
        models.value = (await get<{ models?: readonly Model[] }>('api/models')).models ?? [];
      }
      status.value = now;
      problem.value = now.draining ? 'The server is finishing its jobs and takes no new ones.' : '';
      if (wasLost || isOther) reconnects.value += 1;
    } catch (caught) {
      report(ApiError.from(caught));
    }
  });
}

/** Shows a problem of the connection until the next answer. */
export function report(error: ApiError): void {
  problem.value = isOffline(error) ? `The server is offline: ${error.message}` : error.message;
}
