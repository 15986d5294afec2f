/** The red, green and blue (-1 to 1) that each channel of a model's latents adds, and the colour of latents that are all zero. */
export interface LatentColours {
  readonly channels: readonly (readonly [red: number, green: number, blue: number])[];
  readonly bias: readonly [red: number, green: number, blue: number];
}

/**
 * One frame of latents to an image of one pixel each: uint8 [height, width, 3].
 * @param latents [C, frames, height, width]; of several frames the one that is named
 */
export function previewFromLatents(
  latents: Float32Array,
  { width, height, frames = 1 }: { readonly width: number; readonly height: number; readonly frames?: number },
  colours: LatentColours,
  frame = 0,
): { width: number; height: number; rgb: Uint8Array } {
  const area = width * height;
  const rgb = new Uint8ClampedArray(area * 3);
  for (let i = 0; i < area; i += 1) {
    for (let colour = 0; colour < 3; colour += 1) {
      const at = (channel: number) => latents[(channel * frames + frame) * area + i] ?? 0;
      const value = colours.channels.reduce(
        (sum, row, c) => sum + at(c) * (row[colour] ?? 0),
        colours.bias[colour] ?? 0,
      );
      rgb[i * 3 + colour] = (value * 0.5 + 0.5) * 255;
    }
  }
  return { width, height, rgb: new Uint8Array(rgb.buffer) };
}

/** Lets previews through at a rate; the first one at once. */
export class PreviewClock {
  readonly #intervalMs: number;
  #nextMs = Number.NEGATIVE_INFINITY;

  /** @param perSecond 0: never */
  constructor(perSecond: number) {
    this.#intervalMs = 1000 / perSecond;
  }

  isDue(nowMs: number): boolean {
    if (this.#intervalMs === Number.POSITIVE_INFINITY || nowMs < this.#nextMs) return false;
    this.#nextMs = nowMs + this.#intervalMs;
    return true;
  }
}
