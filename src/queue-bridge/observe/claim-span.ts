import type { Traces } from '../../observe/traces.js';
import type { Lease } from '../queue/job-queue.js';

export interface ClaimSpan {
  /** Trace of a claimed job that has none. */
  readonly traceparent: string;
  /** Call it with the claimed job. Without one the span is never exported. */
  end(lease: Lease): void;
}

/** Begins the span of a claim, which begins the trace of a job whose payload names none. */
export function startClaim(traces: Traces | undefined): ClaimSpan | undefined {
  if (traces === undefined) return undefined;
  const startMs = Date.now();
  const attributes = { 'messaging.operation.type': 'receive' };
  const root = traces.start('claim', { kind: 'consumer', startMs, attributes });
  return {
    traceparent: root.traceparent,
    end({ id, type, lane, traceparent }) {
      const facts = {
        'messaging.destination.name': lane,
        'messaging.message.id': id,
        'darkroom.job.id': id,
        'darkroom.job.type': type,
      };
      if (traceparent === root.traceparent) root.end({ attributes: facts });
      else
        traces.record('claim', {
          kind: 'consumer',
          parent: traceparent,
          startMs,
          attributes: { ...attributes, ...facts },
        });
    },
  };
}
