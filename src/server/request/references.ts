import { type Mask, type Reference, ReferenceRole, ReferenceType } from '../../gen/darkroom/v1/job.js';
import type { FramePlace } from '../../pipelines/pipeline.js';
import { applyReferences, imageMethod, startsFromImage } from './applied-references.js';
import { checkEnum } from './enum-values.js';
import type { Check } from './field-checks.js';
import type { PlannedMask, PlannedReferences, ReferenceSource } from './planned-references.js';
import type { Preset } from './presets.js';
import type { RequestedModel } from './request-context.js';

const MIN_STRENGTH = 0.1;

/**
 * Share of the steps that runs on a reference, at the weakest strength (0.1) and at the strongest (1.0). More steps
 * leave less of the reference. Style keeps colours and light only, so the prompt does most of the work. A composition
 * keeps its layout. A character keeps its features, but not its pose.
 */
const DENOISING: Readonly<Record<number, { readonly weakest: number; readonly strongest: number }>> = {
  [ReferenceType.REFERENCE_TYPE_UNSPECIFIED]: { weakest: 0.9, strongest: 0.3 },
  [ReferenceType.REFERENCE_TYPE_COMPOSITION]: { weakest: 0.9, strongest: 0.3 },
  [ReferenceType.REFERENCE_TYPE_STYLE]: { weakest: 0.95, strongest: 0.6 },
  [ReferenceType.REFERENCE_TYPE_CHARACTER]: { weakest: 0.85, strongest: 0.4 },
};

/** Types of references that say how the result looks, not where things are. */
const LIKENESSES: ReadonlySet<ReferenceType> = new Set([
  ReferenceType.REFERENCE_TYPE_STYLE,
  ReferenceType.REFERENCE_TYPE_CHARACTER,
]);

const MAX_BLUR = 64;
const MAX_PADDING = 512;

interface ReferenceContext {
  /** Of the request. */
  readonly mask: Mask | undefined;
  readonly model: RequestedModel;
  readonly makes: Preset['makes'];
  readonly steps: number;
  /** The request sets the steps. */
  readonly hasSteps: boolean;
  readonly limitBytes: number;
}

/** Checks the references of a request. Undefined if it has none that can be used. */
export function planReferences(
  references: readonly Reference[],
  { model: { family, info }, makes, steps, hasSteps, limitBytes, mask: wanted }: ReferenceContext,
  check: Check,
): PlannedReferences | undefined {
  const most = makes === 'video' ? 3 : 1;
  check(
    references.length <= most,
    'references',
    `references of ${makes === 'video' ? 'a video' : 'an image'} must be at most ${most}, these are ${references.length}`,
  );
  const [first] = references;
  const isMaskTaken = wanted === undefined || family.references.takesMask === true;
  check(isMaskTaken, 'mask', `mask is not for models of the family ${family.name}; leave it out`);
  const mask = wanted && isMaskTaken ? planMask(wanted, limitBytes, check) : undefined;
  check(
    mask === undefined || references.length === 1,
    'mask',
    'mask needs one reference: the image that it belongs to',
  );
  if (first === undefined) return undefined;
  const sources = references.map((reference, i) => sourceOf(reference, `references[${i}]`, limitBytes, check));
  const strength = planStrength(references, family.references.defaultStrength, check);
  if (makes !== 'video') {
    const role = first.role === ReferenceRole.REFERENCE_ROLE_UNSPECIFIED;
    check(role, 'references[0].role', 'references[0].role is for videos; leave it out for an image');
    // A mask belongs to the reference's own pixels, and a denoising strength to a start from them.
    const isLikeness = mask === undefined && first.denoisingStrength === undefined && LIKENESSES.has(first.type);
    const method = mask === undefined ? imageMethod(isLikeness, info) : 'inpaint';
    const isStart = startsFromImage(method);
    const isAllNew = mask !== undefined && first.strength === undefined && first.denoisingStrength === undefined;
    const reference = isAllNew ? { ...first, denoisingStrength: 1 } : first;
    const denoisingStrength = isStart ? shareOf(reference, strength, { steps, hasSteps }, check) : undefined;
    // It is no frame of a model that takes a look.
    const place: FramePlace = !isStart && info.frames?.takes.includes('look') ? 'look' : 'start';
    const [source] = sources;
    const applied = applyReferences([place], info, method);
    return source && { applied, mode: 'single', [place]: source, mask, strength, denoisingStrength };
  }
  const images = placed(references, sources, check);
  const { start, end } = images;
  const isSingle = references.length === 1 && first.role === ReferenceRole.REFERENCE_ROLE_UNSPECIFIED;
  const frames = end === undefined ? (isSingle ? 'single' : 'start') : start === undefined ? 'end' : 'both';
  return {
    applied: applyReferences(
      PLACES.filter((place) => images[place] !== undefined),
      info,
    ),
    mode: start === undefined && end === undefined ? 'look' : frames,
    ...images,
    strength,
    denoisingStrength: undefined,
  };
}

/** The strength that counts for all references: the first that the request has. */
function planStrength(references: readonly Reference[], unset: number, check: Check): number {
  const first = references.findIndex((reference) => reference.strength !== undefined);
  const sent = references[first]?.strength;
  if (sent === undefined) return unset;
  const isInside = sent >= MIN_STRENGTH && sent <= 1;
  const field = `references[${first}].strength`;
  check(isInside, field, `${field} ${sent} must be >= ${MIN_STRENGTH} and <= 1`);
  for (const [i, { strength: other = sent }] of references.entries()) {
    if (i <= first) continue;
    const same = `must be that of references[${first}], ${sent}; one strength counts for all`;
    check(Object.is(other, sent), `references[${i}].strength`, `references[${i}].strength ${other} ${same}`);
  }
  return isInside ? sent : unset;
}

const PLACES: readonly FramePlace[] = ['start', 'end', 'look'];

const PLACE_OF: Readonly<Record<number, FramePlace>> = {
  [ReferenceRole.REFERENCE_ROLE_UNSPECIFIED]: 'start',
  [ReferenceRole.REFERENCE_ROLE_START]: 'start',
  [ReferenceRole.REFERENCE_ROLE_END]: 'end',
  [ReferenceRole.REFERENCE_ROLE_LOOK]: 'look',
};

/** Sources of a video's references by their roles, each of which comes once. */
function placed(
  references: readonly Reference[],
  sources: readonly (ReferenceSource | undefined)[],
  check: Check,
): Readonly<Partial<Record<FramePlace, ReferenceSource>>> {
  const found: Partial<Record<FramePlace, ReferenceSource>> = {};
  const taken = new Set<FramePlace>();
  for (const [i, { role }] of references.entries()) {
    const field = `references[${i}].role`;
    const place = PLACE_OF[role];
    checkEnum(ReferenceRole, 'ReferenceRole', field, role, check);
    check(place === undefined || !taken.has(place), field, `${field} must be another one than those before it`);
    if (place === undefined) continue;
    taken.add(place);
    const source = sources[i];
    if (source !== undefined) found[place] = source;
  }
  return found;
}

function planMask(mask: Mask, limitBytes: number, check: Check): PlannedMask | undefined {
  const { blur } = mask;
  check(blur >= 0 && blur <= MAX_BLUR, 'mask.blur', `mask.blur ${blur} must be >= 0 and <= ${MAX_BLUR}`);
  const { cropPadding } = mask;
  const isPadding = cropPadding === undefined || cropPadding <= MAX_PADDING;
  check(isPadding, 'mask.crop_padding', `mask.crop_padding ${cropPadding} must be >= 0 and <= ${MAX_PADDING}`);
  const source = sourceOf(mask, 'mask', limitBytes, check);
  return source && { source, blur, cropPadding };
}

/**
 * Checks where an image or a video comes from.
 * @param field that has the source
 * @param kind name of its bytes
 */
export function sourceOf(
  { source }: Pick<Reference, 'source'>,
  field: string,
  limitBytes: number,
  check: Check,
  kind = 'image',
): ReferenceSource | undefined {
  // Forms and the queue send an empty URL for none.
  const isGiven = source !== undefined && !(source.$case === 'url' && source.value === '');
  check(isGiven, `${field}.source`, `${field} must have ${kind === 'image' ? 'an image' : `a ${kind}`} or a url`);
  if (source?.$case === 'url') return { kind: 'url', url: source.value };
  if (source === undefined) return undefined;
  const size = source.value.length;
  check(
    size > 0 && size <= limitBytes,
    `${field}.${kind}`,
    `${field}.${kind} of ${size} bytes must be >= 1 and <= ${limitBytes}; send a smaller file or raise REFERENCE_MAX_BYTES`,
  );
  return { kind: 'bytes', bytes: source.value };
}

/** Image-to-image: the share of the steps that runs on the image. */
function shareOf(
  reference: Reference,
  strength: number,
  { steps, hasSteps }: Pick<ReferenceContext, 'steps' | 'hasSteps'>,
  check: Check,
): number {
  const range = DENOISING[reference.type];
  check(range !== undefined, 'references[0].type', 'references[0].type is unknown; use a value of ReferenceType');
  const { weakest = 1, strongest = 1 } = range ?? {};
  const byType = weakest - ((weakest - strongest) * (strength - MIN_STRENGTH)) / (1 - MIN_STRENGTH);
  // Round, so that a floating-point error does not cost a step.
  const share = reference.denoisingStrength ?? Number(byType.toFixed(6));
  const isShare = share > 0 && share <= 1;
  // The share of a type and a strength is always inside.
  check(isShare, 'references[0].denoising_strength', `references[0].denoising_strength ${share} must be > 0 and <= 1`);
  check(
    !isShare || Math.floor(steps * share) >= 1,
    hasSteps ? 'steps' : 'references[0].denoising_strength',
    `steps ${steps} times the denoising strength ${short(share)} must be >= 1; use ${Math.ceil(1 / share)} steps or more`,
  );
  return share;
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
