import { type Reference, ReferenceRole, ReferenceType } from '../gen/darkroom/v1/job.js';

/** Notes a bad field. */
export type Check = (holds: boolean, field: string, description: string) => void;

export interface PlannedReference {
  readonly source:
    | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
    | { readonly kind: 'url'; readonly url: string };
  /** As the caller said it, or the default: 0.1 to 1. */
  readonly strength: number;
  /** As diffusers counts it: the share of the steps that is run on the picture. */
  readonly denoisingStrength: number;
}

const MIN_STRENGTH = 0.1;
const DEFAULT_STRENGTH = 0.5;

/**
 * Which share of the steps is run on a reference at the weakest strength (0.1) and at the strongest (1.0): the more steps, the
 * less of it is left. Style keeps colours and light only, so it leaves most of the work to the prompt; a composition is to stay
 * where it is; a character needs its features, but not its pose.
 */
const DENOISING: Readonly<Record<number, { readonly weakest: number; readonly strongest: number }>> = {
  [ReferenceType.REFERENCE_TYPE_UNSPECIFIED]: { weakest: 0.9, strongest: 0.3 },
  [ReferenceType.REFERENCE_TYPE_COMPOSITION]: { weakest: 0.9, strongest: 0.3 },
  [ReferenceType.REFERENCE_TYPE_STYLE]: { weakest: 0.95, strongest: 0.6 },
  [ReferenceType.REFERENCE_TYPE_CHARACTER]: { weakest: 0.85, strongest: 0.4 },
};

/** Checks the references of a picture job; undefined where there is none, or none that could be used. */
export function planReference(
  references: readonly Reference[],
  { steps, limitBytes }: { readonly steps: number; readonly limitBytes: number },
  check: Check,
): PlannedReference | undefined {
  const [reference] = references;
  check(references.length <= 1, 'references', `references of SDXL must be at most 1, these are ${references.length}`);
  if (reference === undefined) return undefined;
  const at = (field: string) => `references[0].${field}`;
  const { source } = reference;
  const role = reference.role === ReferenceRole.REFERENCE_ROLE_UNSPECIFIED;
  check(role, at('role'), 'references[0].role is for clips; leave it out for a picture');
  const range = DENOISING[reference.type];
  check(range !== undefined, at('type'), 'references[0].type is unknown; use a value of ReferenceType');
  check(source !== undefined, at('source'), 'references[0] must have an image or a url');
  if (source?.$case === 'image') {
    const size = source.value.length;
    check(
      size > 0 && size <= limitBytes,
      at('image'),
      `references[0].image of ${size} bytes must be >= 1 and <= ${limitBytes}; send a smaller file or raise REFERENCE_MAX_BYTES`,
    );
  }
  const strength = reference.strength ?? DEFAULT_STRENGTH;
  check(
    strength >= MIN_STRENGTH && strength <= 1,
    at('strength'),
    `references[0].strength ${strength} must be >= ${MIN_STRENGTH} and <= 1`,
  );
  const { weakest = 1, strongest = 1 } = range ?? {};
  const byType = weakest - ((weakest - strongest) * (strength - MIN_STRENGTH)) / (1 - MIN_STRENGTH);
  // A step must not be lost to the last bit of a sum.
  const denoisingStrength = reference.denoisingStrength ?? Number(byType.toFixed(6));
  const isShare = denoisingStrength > 0 && denoisingStrength <= 1;
  check(
    isShare,
    at('denoising_strength'),
    `references[0].denoising_strength ${denoisingStrength} must be > 0 and <= 1`,
  );
  check(
    !isShare || Math.floor(steps * denoisingStrength) >= 1,
    'steps',
    `steps ${steps} times the denoising strength ${short(denoisingStrength)} must be >= 1; use ${Math.ceil(1 / denoisingStrength)} steps or more`,
  );
  if (source === undefined) return undefined;
  return {
    source: source.$case === 'image' ? { kind: 'bytes', bytes: source.value } : { kind: 'url', url: source.value },
    strength,
    denoisingStrength,
  };
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
