import { InferenceError } from '../../errors.js';
import type { ControlVideo, ControlVideoUse } from '../../gen/darkroom/v1/job.js';
import { titlesOf } from '../../pipelines/family.js';
import type { RequestControlVideo } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';
import type { ReferenceSource } from './planned-references.js';
import type { Preset } from './presets.js';
import { sourceOf } from './references.js';
import type { RequestContext, RequestedModel } from './request-context.js';

const MAX_SCALE = 2;

/** A checked control video of a request. Its file is not fetched. */
export interface PlannedControlVideo extends Pick<RequestControlVideo, 'fps' | 'scale'> {
  readonly source: ReferenceSource;
}

/** Checks the control video of a request. Undefined if it has none that can be used. */
export function planControlVideo(
  wanted: ControlVideo | undefined,
  { config, families, model: { family, info } }: RequestContext,
  makes: Preset['makes'],
  check: Check,
): PlannedControlVideo | undefined {
  if (wanted === undefined) return undefined;
  const { source: given, scale } = wanted;
  const takers = titlesOf(families, ({ takes }) => takes.controlVideo);
  const isTaken = family.takes.controlVideo;
  check(isTaken, 'control_video', `control_video is for ${takers}; leave it out for ${family.title}`);
  if (!isTaken) return undefined;
  const isForVideo = makes === 'video';
  check(isForVideo, 'control_video', 'control_video is for videos; leave it out for an image');
  const isScale = scale === undefined || (scale >= 0 && scale <= MAX_SCALE);
  check(isScale, 'control_video.scale', `control_video.scale ${scale} must be >= 0 and <= ${MAX_SCALE}`);
  const image = given?.$case === 'video' ? ({ $case: 'image', value: given.value } as const) : given;
  const source = sourceOf({ source: image }, 'control_video', config.REFERENCE_MAX_BYTES, check, 'video');
  return source && info.clip && { source, scale, fps: info.clip.fps };
}

/**
 * @throws InferenceError MODEL_UNSUPPORTED if the model takes no control video, INVALID_REQUEST if it takes no scale
 */
export function assertTakesControlVideo(
  planned: PlannedControlVideo | undefined,
  { name, info }: RequestedModel,
): void {
  if (planned === undefined) return;
  const { takesControlVideo = false, method } = info.frames ?? {};
  if (!takesControlVideo) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `model "${name}" takes no control_video; leave it out, or use a VACE or a Fun-Control model`,
    );
  }
  if (planned.scale === undefined || method === 'vace') return;
  const description = `control_video.scale is for VACE models; leave it out for model "${name}"`;
  throw new InferenceError('INVALID_REQUEST', description, {
    violations: [{ field: 'control_video.scale', description }],
  });
}

/** The use of a control video in the API's form. */
export function controlVideoUse(control: RequestControlVideo | undefined): ControlVideoUse | undefined {
  return control && { frames: control.frames, scale: control.scale };
}
