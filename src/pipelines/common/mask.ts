interface Size {
  readonly width: number;
  readonly height: number;
}

/**
 * A mask at the size of the latents: the pixel at the corner of each latent, as torch's `interpolate` takes it (mode nearest).
 * @param mask uint8 [height, width] of `from`
 * @returns float32 [height, width] of `to`, 0 to 1
 */
export function shrinkMask(mask: Uint8Array, from: Size, to: Size): Float32Array {
  const shrunk = new Float32Array(to.width * to.height);
  for (let y = 0; y < to.height; y += 1) {
    const row = Math.floor((y * from.height) / to.height) * from.width;
    for (let x = 0; x < to.width; x += 1) {
      shrunk[y * to.width + x] = (mask[row + Math.floor((x * from.width) / to.width)] ?? 0) / 255;
    }
  }
  return shrunk;
}

/**
 * The drawn image where the mask says so, the kept one elsewhere: pixels with a mask of 0 are those of the kept image exactly.
 * @param drawn uint8 [height, width, 3], as `kept`
 * @param mask uint8 [height, width]
 */
export function keepUnmasked(drawn: Uint8Array, kept: Uint8Array, mask: Uint8Array): Uint8Array {
  return drawn.map((value, i) => {
    const share = mask[Math.floor(i / 3)] ?? 0;
    return Math.round((value * share + (kept[i] ?? 0) * (255 - share)) / 255);
  });
}
