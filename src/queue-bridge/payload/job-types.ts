import { JobType } from '../../gen/darkroom/v1/job.js';
import type { Lane } from '../queue/job-queue.js';

/** What the bridge knows of a job type; steps and guidance are the server's. */
export interface JobTypeInfo {
  readonly jobType: JobType;
  readonly lane: Lane;
  readonly makes: 'pictures' | 'picture' | 'clip';
  /** Upper bound of the old system's time on an RTX 6000 Ada, in seconds, for that many pictures. */
  readonly expectedSeconds: (pictures: number) => number;
}

const wan = (jobType: JobType, makes: 'picture' | 'clip', seconds: number): JobTypeInfo => ({
  jobType,
  lane: 'wan',
  makes,
  expectedSeconds: () => seconds,
});

/** The ten job types by the names that payloads and buckets have. */
export const jobTypes: ReadonlyMap<string, JobTypeInfo> = new Map<string, JobTypeInfo>([
  [
    'sdxl_image_fast',
    {
      jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST,
      lane: 'sdxl',
      makes: 'pictures',
      expectedSeconds: (pictures) => (pictures <= 1 ? 8 : pictures <= 3 ? 24 : 48),
    },
  ],
  [
    'sdxl_image_high',
    { jobType: JobType.JOB_TYPE_SDXL_IMAGE_HIGH, lane: 'sdxl', makes: 'pictures', expectedSeconds: () => 24 },
  ],
  ['image_fast', wan(JobType.JOB_TYPE_IMAGE_FAST, 'picture', 40)],
  ['image_high', wan(JobType.JOB_TYPE_IMAGE_HIGH, 'picture', 100)],
  ['video_fast', wan(JobType.JOB_TYPE_VIDEO_FAST, 'clip', 180)],
  ['video_high', wan(JobType.JOB_TYPE_VIDEO_HIGH, 'clip', 240)],
  ['image7b_fast_enhanced', wan(JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED, 'picture', 100)],
  ['image7b_high_enhanced', wan(JobType.JOB_TYPE_IMAGE7B_HIGH_ENHANCED, 'picture', 240)],
  ['video7b_fast_enhanced', wan(JobType.JOB_TYPE_VIDEO7B_FAST_ENHANCED, 'clip', 240)],
  ['video7b_high_enhanced', wan(JobType.JOB_TYPE_VIDEO7B_HIGH_ENHANCED, 'clip', 240)],
]);
