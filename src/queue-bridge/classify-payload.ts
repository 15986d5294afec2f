import { failedBody } from './callback/callback-body.js';
import { callerMessage } from './callback/callback-message.js';
import { jobTypes } from './payload/job-types.js';
import { readPayload, rejectedRecord } from './payload/payload.js';
import type { Admission, Lane, PendingPayload } from './queue/job-queue.js';

/** What becomes of a payload: a job, a failed callback, or an entry in the list of rejected ones. */
export function admissionOf({ queue, raw, bytes }: PendingPayload): Admission {
  const read = readPayload(raw, bytes);
  switch (read.kind) {
    case 'job': {
      const { id, user_id: user, type } = read.payload;
      // By its type and not by its list: a job on the wrong one is run all the same.
      return { kind: 'job', id, user, type, lane: (jobTypes.get(type)?.family ?? 'sdxl') as Lane };
    }
    case 'invalid': {
      const { id, user, type, problem } = read;
      const message = callerMessage({ reason: 'INVALID_REQUEST', message: problem });
      return { kind: 'refused', id, user, type, callback: failedBody(id, { reason: 'INVALID_REQUEST', message }) };
    }
    case 'unusable':
      return { kind: 'rejected', record: rejectedRecord(queue, raw, read.problem) };
  }
}
