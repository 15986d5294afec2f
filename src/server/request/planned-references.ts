import type { AppliedReferences } from './applied-references.js';

/** An image that is not fetched or decoded yet. */
export type ReferenceSource =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'url'; readonly url: string };

export interface PlannedMask {
  readonly source: ReferenceSource;
  /** Standard deviation of its blur, in pixels of the result. */
  readonly blur: number;
  /** Only the masked part is drawn: pixels around it. Undefined: all is. */
  readonly cropPadding: number | undefined;
}

/** Checked references of a request. */
export interface PlannedReferences {
  readonly applied: AppliedReferences;
  /** Reference mode of the contract, which is that of the frames; `look`: there is no frame. */
  readonly mode: 'single' | 'start' | 'end' | 'both' | 'look';
  /** The first frame; in mode `single` the only reference, unless the model takes that as a look. */
  readonly start?: ReferenceSource;
  readonly end?: ReferenceSource;
  /** An image that the result is to look like. */
  readonly look?: ReferenceSource;
  /** Image jobs only: the part of the reference that is drawn anew. */
  readonly mask?: PlannedMask | undefined;
  /** Requested or default strength, 0.1 to 1. */
  readonly strength: number;
  /**
   * Image jobs only: the share of the steps that runs on the image, as diffusers counts it. Undefined for models with
   * their own method.
   */
  readonly denoisingStrength: number | undefined;
}
