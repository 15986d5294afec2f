import type { OutputOptions } from '../../engine/messages.js';
import type { ModelInfo } from '../../pipelines/pipeline.js';
import type { JobPlan } from '../request/resolve.js';

/** The files of a job. A video has the model's rate: what came before the model was loaded was planned with its family's. */
export function outputOf(
  { output }: Pick<JobPlan, 'output'>,
  info: Pick<ModelInfo, 'clip'> | undefined,
): OutputOptions {
  const { video } = output;
  return video === undefined || info?.clip === undefined
    ? output
    : { ...output, video: { ...video, fps: info.clip.fps } };
}
