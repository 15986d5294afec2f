import type { Config } from '../../config/server-config.js';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { ReferenceRole } from '../../gen/darkroom/v1/job.js';
import { type Check, checkLimit } from './field-checks.js';
import type { Preset } from './presets.js';
import type { RequestedModel } from './request-context.js';

/** Frames that are rendered: 1 for an image; undefined for a family that makes images only. */
export function planFrames(
  { frames: requested, references }: GenerateRequest,
  makes: Preset['makes'],
  { family: { video }, info: { clip } }: Pick<RequestedModel, 'family' | 'info'>,
  { LIMIT_FRAMES }: Config,
  check: Check,
): number | undefined {
  if (makes !== 'video') {
    check(requested <= 1, 'frames', `frames ${requested} are for videos; leave them out for an image`);
    return video && 1;
  }
  // The job type is refused.
  if (video === undefined || clip === undefined) return undefined;
  const frames = requested || clip.frames;
  checkLimit('frames', frames, { min: 1, max: LIMIT_FRAMES, variable: 'LIMIT_FRAMES' }, check);
  // A video of one latent frame has no end apart from its start.
  const { minFramesWithEnd } = video;
  const hasEnd = references.some(({ role }) => role === ReferenceRole.REFERENCE_ROLE_END);
  check(
    frames >= minFramesWithEnd || !hasEnd,
    'frames',
    `frames ${frames} must be >= ${minFramesWithEnd} with an end reference`,
  );
  return video.roundFrames(frames);
}
