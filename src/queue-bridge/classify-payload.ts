import type { Lane } from '../config/bridge-lanes.js';
import type { JobTypes } from '../job-types.js';
import { failedBody } from './callback/callback-body.js';
import { callbackMessage } from './callback/callback-message.js';
import { readPayload, rejectedRecord } from './payload/payload.js';
import type { Admission, PendingPayload } from './queue/job-queue.js';

export interface ClassifyOptions {
  readonly jobTypes: JobTypes;
  readonly lanes: readonly Pick<Lane, 'name' | 'queue'>[];
}

/** Decides what a payload becomes: a job, a failed callback, or an entry in the list of rejected payloads. */
export function classifyPayload(
  { queue, raw, bytes }: PendingPayload,
  { jobTypes, lanes }: ClassifyOptions,
): Admission {
  const read = readPayload(raw, { jobTypes, bytes });
  switch (read.kind) {
    case 'job': {
      const { id, user_id: user, type } = read.payload;
      // The type decides, not the list: a job on the wrong list runs all the same.
      return { kind: 'job', id, user, type, lane: read.jobType.family, traceparent: read.traceparent };
    }
    case 'invalid': {
      const { id, user, type, problem, traceparent } = read;
      const lane = jobTypes.get(type)?.family ?? lanes.find((other) => other.queue === queue)?.name ?? '';
      const message = callbackMessage({ reason: 'INVALID_REQUEST', message: problem });
      const callback = failedBody(id, { reason: 'INVALID_REQUEST', message });
      return { kind: 'refused', id, user, lane, type, callback, problem, traceparent };
    }
    case 'unusable':
      return { kind: 'rejected', record: rejectedRecord(queue, raw, read.problem), problem: read.problem };
  }
}
