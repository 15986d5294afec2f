/** An image that is not fetched or decoded yet. */
export type ReferenceSource =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'url'; readonly url: string };

/** What becomes of a request's references. */
export interface PlannedReferences {
  /** Name of the model that they are for: what it makes of them, it says once it is known (applied-references.ts). */
  readonly model: string;
  readonly isVideo: boolean;
  /** As the contract names them. */
  readonly mode: 'single' | 'start' | 'end' | 'both';
  /** Of `single` the one there is. */
  readonly start?: ReferenceSource;
  readonly end?: ReferenceSource;
  /** As the caller said it, or the default: 0.1 to 1. */
  readonly strength: number;
  /** Of a picture, as diffusers counts it: the share of the steps that is run on it. Undefined on a model with a way of its own. */
  readonly denoisingStrength: number | undefined;
}
