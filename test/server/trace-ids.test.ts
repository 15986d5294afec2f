import { expect, it } from 'vitest';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { Job } from '../../src/server/jobs/job.js';
import { TraceIds } from '../../src/server/observe/trace-ids.js';

const jobOf = (owner: string) =>
  new Job({ id: 'same', owner, requestHash: '', jobType: JobType.JOB_TYPE_UNSPECIFIED, model: 'sdxl' });
const callOf = (digit: string) => ({ path: '', traceparent: `00-${digit.repeat(32)}-${digit.repeat(16)}-01` });

it('keeps the traces of jobs apart that two owners gave the same id', () => {
  const traceIds = new TraceIds();
  const [anna, ben] = [jobOf('anna'), jobOf('ben')];
  traceIds.jobAccepted(anna, callOf('a'));
  expect(traceIds.fieldsOf({ jobId: 'same' })).toEqual({ traceId: 'a'.repeat(32) });
  traceIds.jobAccepted(ben, callOf('b'));
  expect([anna, ben].map((job) => traceIds.of(job))).toEqual(['a'.repeat(32), 'b'.repeat(32)]);
  // A line with the id alone may be of either.
  expect(traceIds.fieldsOf({ jobId: 'same' })).toEqual({});
  traceIds.jobEnded(anna);
  expect(traceIds.fieldsOf({ jobId: 'same' })).toEqual({ traceId: 'b'.repeat(32) });
  traceIds.jobEnded(ben);
  expect(traceIds.fieldsOf({ jobId: 'same' })).toEqual({});
});
