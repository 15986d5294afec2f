import { JobType } from '../../gen/darkroom/v1/job.js';
import { type JobTypes, jobTypeOfValue, type Makes } from '../../job-types.js';
import type { AnyFamily } from '../../pipelines/family.js';
import type { FrameConditioning } from '../../pipelines/pipeline.js';

/** Defaults of a job type; the request may override every value. */
export interface Preset {
  /** Name of the family that the job type needs. */
  readonly family: string;
  readonly makes: Makes;
  /** A language model rewrites the prompt first. */
  readonly isEnhanced: boolean;
  readonly steps: number;
  readonly guidanceScale: number;
  /**
   * The default negative prompt; undefined is an absent one, which diffusers treats differently from an empty one.
   * @param frames what the model does with known frames, once that is known
   */
  negativePrompt(prompt: string, frames?: FrameConditioning): string | undefined;
}

/**
 * The preset of a job type. Without a job type the request is a bare call of its model.
 * @param family of the model that will run it
 * @returns undefined for a number that is no job type
 */
export function presetOf(jobType: JobType, family: AnyFamily, jobTypes: JobTypes): Preset | undefined {
  const negativePrompt = family.negativePrompt.bind(family);
  if (jobType === JobType.JOB_TYPE_UNSPECIFIED) {
    const { makes, steps, guidanceScale, hasNegativePrompt } = family.bareCall;
    return {
      family: family.name,
      makes,
      isEnhanced: false,
      steps,
      guidanceScale,
      negativePrompt: hasNegativePrompt ? negativePrompt : () => undefined,
    };
  }
  const type = jobTypeOfValue(jobTypes, jobType);
  return type && { ...type, negativePrompt };
}
