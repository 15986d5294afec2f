import { EventSourceParserStream } from 'eventsource-parser/stream';
import { ApiError, call, isOffline, type JobEvent } from './api';
import { sleep } from './timing';
import { whenVisible, whileVisible } from './visibility';

const FIRST_DELAY_MS = 300;
const MAX_DELAY_MS = 5000;

export interface WatchOptions {
  readonly onEvent: (event: JobEvent) => void;
  /** Called with what interrupts the stream, and with undefined when it goes on. */
  readonly onInterruption: (error: ApiError | undefined) => void;
  readonly signal: AbortSignal;
}

/**
 * Watches a job to its end. A stream that breaks off is opened again after the last sequence number, so no event is missed and none
 * comes twice. A browser opens six connections to one address, so a hidden tab closes its own.
 * @throws ApiError if the job cannot be watched, for example because the server does not know it
 */
export async function watchJob(jobId: string, { onEvent, onInterruption, signal }: WatchOptions): Promise<void> {
  let after = '0';
  let delay = FIRST_DELAY_MS;
  while (!signal.aborted) {
    await whenVisible();
    const visible = whileVisible(signal);
    try {
      const response = await call(`api/jobs/${encodeURIComponent(jobId)}/events`, {
        headers: { 'last-event-id': after },
        signal: visible.signal,
      });
      onInterruption(undefined);
      for await (const { id, event, data } of eventsOf(response)) {
        if (event === 'problem') {
          const { reason, message } = JSON.parse(data) as ApiError;
          throw new ApiError(reason, message);
        }
        delay = FIRST_DELAY_MS;
        after = id ?? after;
        onEvent(JSON.parse(data) as JobEvent);
        if (event === 'completed' || event === 'failed') return;
      }
    } catch (caught) {
      if (signal.aborted) return;
      if (visible.signal.aborted) continue;
      const error = ApiError.from(caught);
      if (!isOffline(error)) throw error;
      onInterruption(error);
    } finally {
      visible.stop();
    }
    await sleep(delay);
    delay = Math.min(delay * 2, MAX_DELAY_MS);
  }
}

async function* eventsOf({ body }: Response) {
  const reader = body
    ?.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
