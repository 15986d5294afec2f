import { PassThrough } from 'node:stream';

export interface SseStream {
  readonly stream: PassThrough;
  /** Aborted when the reader goes away, or all was read. */
  readonly gone: AbortSignal;
}

/**
 * Opens the body of an answer of server-sent events. https://html.spec.whatwg.org/multipage/server-sent-events.html
 * @param close called when the reader goes away
 */
export function openSseStream(close: () => void): SseStream {
  const stream = new PassThrough();
  const gone = new AbortController();
  stream.on('close', () => {
    gone.abort();
    close();
  });
  // The reader hung up while something was written.
  stream.on('error', () => undefined);
  return { stream, gone: gone.signal };
}
