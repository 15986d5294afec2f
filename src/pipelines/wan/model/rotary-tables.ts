/** The same for every WAN: https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/modules/model.py#L31 */
const THETA = 10_000;

/** Tokens along each axis. */
export interface Grid {
  readonly frames: number;
  readonly height: number;
  readonly width: number;
}

/** Cosines and sines of every token's angles, [L, D/2] each. */
export interface RotaryTables {
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

/**
 * A head's channels are pairs; the first share turns with the frame, the others with row and column. Made on the host in
 * double precision, as the reference does.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/transformers/transformer_wan.py#L353
 */
export function rotaryTables(headDim: number, { frames, height, width }: Grid): RotaryTables {
  const pairs = headDim / 2;
  const spatial = Math.floor(headDim / 6);
  const shares = [pairs - 2 * spatial, spatial, spatial];
  const cos = new Float32Array(frames * height * width * pairs);
  const sin = new Float32Array(cos.length);
  let i = 0;
  for (let f = 0; f < frames; f += 1) {
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        for (const [axis, position] of [f, y, x].entries()) {
          const share = shares[axis] ?? 0;
          for (let k = 0; k < share; k += 1, i += 1) {
            const angle = position / THETA ** (k / share);
            cos[i] = Math.cos(angle);
            sin[i] = Math.sin(angle);
          }
        }
      }
    }
  }
  return { cos, sin };
}
