import { PassThrough } from 'node:stream';
import { InferenceError } from '../errors.js';
import { JobEvent } from '../gen/darkroom/v1/event.js';

/** Time between two comments of a stream without events, in ms: proxies close streams that are silent. */
const HEARTBEAT_MS = 15_000;

/**
 * Writes the events of a job as server-sent events: the id is the sequence number, the event is the name of the proto's field, the
 * data is the proto's JSON. Chunks of files come without their bytes, one event for each file. An error that is not the job's own
 * end comes as the event `problem`, without an id. https://html.spec.whatwg.org/multipage/server-sent-events.html
 * @param close called when the reader goes away
 */
export function eventStream(events: AsyncIterable<JobEvent>, close: () => void): PassThrough {
  const stream = new PassThrough();
  stream.on('close', close);
  // The reader hung up while something was written.
  stream.on('error', () => undefined);
  const heartbeat = setInterval(() => stream.write(': still here\n\n'), HEARTBEAT_MS);
  void pump(events, stream)
    .catch((error: unknown) => stream.write(problemEvent(InferenceError.from(error))))
    .finally(() => {
      clearInterval(heartbeat);
      stream.end();
    });
  return stream;
}

async function pump(events: AsyncIterable<JobEvent>, stream: PassThrough): Promise<void> {
  let isOver = false;
  try {
    for await (const event of events) {
      if (stream.destroyed) return;
      isOver ||= event.event?.$case === 'completed' || event.event?.$case === 'failed';
      const text = sseEvent(event);
      if (text !== '' && !stream.write(text)) {
        await new Promise<void>((resolve) => {
          stream.once('drain', resolve);
          stream.once('close', resolve);
        });
      }
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
