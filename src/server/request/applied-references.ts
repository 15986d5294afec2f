import { InferenceError } from '../../errors.js';
import {
  type FrameConditioning,
  type FrameMethod,
  type FramePlace,
  holdsLatents,
  type ModelInfo,
} from '../../pipelines/pipeline.js';

export type ReferenceMethod = 'img2img' | 'inpaint' | 'ip_adapter' | FrameMethod;

/** True for methods that begin with a noised image. */
export function startsFromImage(method: ReferenceMethod | undefined): method is 'img2img' | 'inpaint' {
  return method === 'img2img' || method === 'inpaint';
}

/** References of a job as the model applies them. */
export interface AppliedReferences {
  readonly method: ReferenceMethod;
  /** References that the model takes. */
  readonly places: readonly FramePlace[];
  /** Reason why the model does not take all of them. */
  readonly problem: string | undefined;
}

/** Of a model without frames: its image starts from the reference. */
const NO_FRAMES: FrameConditioning = { method: 'latent_hold', takes: ['start'], needs: [] };

/**
 * The method by which the reference of an image is applied: the image starts from it unless the model has its own method, or an
 * IP-Adapter for its kind.
 * @param isLikeness the image is to look like the reference, and need not start from it
 */
export function imageMethod(
  isLikeness: boolean,
  { takesImagePrompts, frames }: Pick<ModelInfo, 'frames' | 'takesImagePrompts'>,
): ReferenceMethod {
  if (isLikeness && takesImagePrompts === true) return 'ip_adapter';
  return frames === undefined || holdsLatents(frames.method) ? 'img2img' : frames.method;
}

const ARTICLES: Readonly<Record<FramePlace, string>> = { start: 'a start', end: 'an end', look: 'a look' };

/**
 * Finds which references a model takes.
 * @param method of an image. Omitted: the model's own
 */
export function applyReferences(
  given: readonly FramePlace[],
  { frames = NO_FRAMES }: Pick<ModelInfo, 'frames'>,
  method: ReferenceMethod = frames.method,
): AppliedReferences {
  const { takes } = frames;
  const places = given.filter((place) => takes.includes(place));
  const left = given.filter((place) => !takes.includes(place));
  const problem =
    left.length === 0
      ? undefined
      : `the ${left.join(' and ')} ${left.length === 1 ? 'reference was' : 'references were'} left out: the model takes ${takes.map((place) => ARTICLES[place]).join(' and ')} reference alone`;
  return { method, places, problem };
}

/** @throws InferenceError REFERENCE_NEEDED if the model needs references that the job does not have */
export function assertNeeded(
  applied: AppliedReferences | undefined,
  { model, isVideo, needs = [] }: { model: string; isVideo: boolean; needs: readonly FramePlace[] | undefined },
): void {
  if (needs.every((place) => applied?.places.includes(place))) return;
  const frames = needs.map((place) => ({ start: 'a first', end: 'a last', look: 'a look' })[place]).join(' and ');
  const wanted = isVideo ? needs.map((place) => ARTICLES[place]).join(' and ') : 'a';
  // An image job can have one reference only.
  const remedy = isVideo || needs.length === 1 ? `give ${wanted} reference, or ` : '';
  throw new InferenceError(
    'REFERENCE_NEEDED',
    `model "${model}" makes videos of ${frames} frame; ${remedy}use a text-to-video or a VACE model`,
  );
}
