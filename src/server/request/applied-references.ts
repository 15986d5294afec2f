import { InferenceError } from '../../errors.js';
import {
  type FrameConditioning,
  type FrameMethod,
  type FramePlace,
  holdsLatents,
  type ModelInfo,
} from '../../pipelines/pipeline.js';
import type { PlannedReferences } from './planned-references.js';

export type ReferenceMethod = 'img2img' | 'inpaint' | 'ip_adapter' | FrameMethod;

/** What decides how references apply. */
type Conditioning = Pick<ModelInfo, 'frames' | 'takesImagePrompts'>;

/** References of a job as the model applies them. */
export interface AppliedReferences {
  readonly method: ReferenceMethod;
  /** References that the model takes. */
  readonly places: readonly FramePlace[];
  /** Reason why the model does not take all of them. */
  readonly problem: string | undefined;
}

/**
 * Default for models that report no frame conditioning: SDXL has no frames, and frames can be held on text-to-video
 * models.
 */
const UNSAID: FrameConditioning = { method: 'latent_hold', takes: ['start', 'end'], needs: [] };

/** An image starts from its reference unless the model has its own method, or an IP-Adapter for its kind. */
export function referenceMethod(
  { isVideo, isLikeness }: Pick<PlannedReferences, 'isVideo' | 'isLikeness'>,
  info: Conditioning | undefined,
): ReferenceMethod {
  if (isLikeness && info?.takesImagePrompts === true) return 'ip_adapter';
  const { method } = info?.frames ?? UNSAID;
  return holdsLatents(method) && !isVideo ? 'img2img' : method;
}

const ARTICLES: Readonly<Record<FramePlace, string>> = { start: 'a start', end: 'an end', look: 'a look' };

/** @param info of the model; undefined counts as no frame conditioning */
export function applyReferences(planned: PlannedReferences, info: Conditioning | undefined): AppliedReferences {
  const { takes } = info?.frames ?? UNSAID;
  const given = placesOf(planned);
  const places = given.filter((place) => takes.includes(place));
  const left = given.filter((place) => !takes.includes(place));
  const problem =
    left.length === 0
      ? undefined
      : `the ${left.join(' and ')} ${left.length === 1 ? 'reference was' : 'references were'} left out: the model takes ${takes.map((place) => ARTICLES[place]).join(' and ')} reference alone`;
  const method = planned.mask === undefined ? referenceMethod(planned, info) : 'inpaint';
  return { method, places, problem };
}

/** @throws InferenceError REFERENCE_NEEDED if the model needs references that the job does not have */
export function assertNeeded(
  planned: PlannedReferences | undefined,
  { model, isVideo, info }: { model: string; isVideo: boolean; info: Pick<ModelInfo, 'frames'> | undefined },
): void {
  const { needs } = info?.frames ?? UNSAID;
  const given = planned === undefined ? [] : placesOf(planned);
  if (needs.every((place) => given.includes(place))) return;
  const frames = needs.map((place) => ({ start: 'a first', end: 'a last', look: 'a look' })[place]).join(' and ');
  const wanted = isVideo ? needs.map((place) => ARTICLES[place]).join(' and ') : 'a';
  // An image job can have one reference only.
  const remedy = isVideo || needs.length === 1 ? `give ${wanted} reference, or ` : '';
  throw new InferenceError(
    'REFERENCE_NEEDED',
    `model "${model}" makes videos of ${frames} frame; ${remedy}use a text-to-video or a VACE model`,
  );
}

/** A single reference of a video is its first frame; a reference of an image takes the same place. */
function placesOf(planned: PlannedReferences): readonly FramePlace[] {
  return (['start', 'end', 'look'] as const).filter((place) => planned[place] !== undefined);
}
