import type { PassThrough } from 'node:stream';
import { InferenceError } from '../errors.js';
import { JobEvent } from '../gen/darkroom/v1/event.js';
import { drained } from '../std/drained.js';
import { openSseStream, type SseStream } from './sse-stream.js';

/** Time between two comments of a stream without events, in ms: proxies close streams that are silent. */
const HEARTBEAT_MS = 15_000;

/**
 * Writes the events of a job as server-sent events: the id is the sequence number, the event is the name of the proto's field, the
 * data is the proto's JSON. Chunks of files come without their bytes, one event for each file. An error that is not the job's own
 * end comes as the event `problem`, without an id.
 * @param close called when the reader goes away
 */
export function eventStream(events: AsyncIterable<JobEvent>, close: () => void): PassThrough {
  const sse = openSseStream(close);
  const { stream } = sse;
  const heartbeat = setInterval(() => stream.write(': still here\n\n'), HEARTBEAT_MS);
  void pump(events, sse)
    .catch((error: unknown) => stream.write(problemEvent(InferenceError.from(error))))
    .finally(() => {
      clearInterval(heartbeat);
      stream.end();
    });
  return stream;
}

async function pump(events: AsyncIterable<JobEvent>, { stream, gone }: SseStream): Promise<void> {
  let isOver = false;
  try {
    for await (const event of events) {
      if (gone.aborted) return;
      isOver ||= event.event?.$case === 'completed' || event.event?.$case === 'failed';
      const text = sseEvent(event);
      if (text !== '' && !stream.write(text)) await drained(stream, gone);
    }
  } catch (error) {
    // A failed job ends its stream with an error, after the event that says so.
    if (!isOver) throw error;
  }
}

function sseEvent(event: JobEvent): string {
  const { event: what } = event;
  if (what === undefined) return '';
  let sent = event;
  if (what.$case === 'assetChunk') {
    if (what.value.asset === undefined) return '';
    sent = { ...event, event: { $case: 'assetChunk', value: { ...what.value, data: Buffer.alloc(0) } } };
  }
  return `id: ${event.sequence}\nevent: ${what.$case}\ndata: ${JSON.stringify(JobEvent.toJSON(sent))}\n\n`;
}

function problemEvent({ reason, message, retryable }: InferenceError): string {
  return `event: problem\ndata: ${JSON.stringify({ reason, message, retryable })}\n\n`;
}
