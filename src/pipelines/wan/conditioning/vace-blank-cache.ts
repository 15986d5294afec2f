import type { ClipSize } from '../networks.js';

type Latents = readonly Float32Array[];

/**
 * The latents of a clip of nothing but zeros, [16, h, w] each, of the last size that was asked for. VACE is told them with every
 * clip that is made of text alone, and nearly all of those have one size.
 */
export class BlankLatents {
  #kept: { readonly key: string; readonly latents: Latents } | undefined;

  find({ frames, height, width }: ClipSize): Latents | undefined {
    return this.#kept?.key === `${frames} ${height} ${width}` ? this.#kept.latents : undefined;
  }

  keep({ frames, height, width }: ClipSize, latents: Latents): void {
    this.#kept = { key: `${frames} ${height} ${width}`, latents };
  }
}
