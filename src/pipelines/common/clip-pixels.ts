import type { ImageEncoderConfig } from './image-encoder-config.js';
import { resizeBicubic } from './resize-pillow.js';

interface RgbImage {
  readonly width: number;
  readonly height: number;
  /** Row-major uint8 [height, width, 3]. */
  readonly rgb: Uint8Array;
}

/**
 * An image as CLIP's image tower takes it, [3, S, S]: its shorter side S long, the middle of the longer one, of mean 0 and
 * deviation 1 over what the tower was trained on.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/image_processing_clip.py#L241
 */
export function clipPixels(
  image: RgbImage,
  {
    image_size: side,
    image_mean: mean,
    image_std: std,
  }: Pick<ImageEncoderConfig, 'image_size' | 'image_mean' | 'image_std'>,
): Float32Array {
  const { width, height } = image;
  const shorter = Math.min(width, height);
  const size = { width: Math.trunc((side * width) / shorter), height: Math.trunc((side * height) / shorter) };
  const rgb = resizeBicubic({ width, height, values: image.rgb }, size);
  const [left, top] = [Math.floor((size.width - side) / 2), Math.floor((size.height - side) / 2)];
  const pixels = new Float32Array(3 * side * side);
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      for (let colour = 0; colour < 3; colour += 1) {
        const value = rgb[((top + y) * size.width + left + x) * 3 + colour] ?? 0;
        pixels[(colour * side + y) * side + x] = (value / 255 - (mean[colour] ?? 0)) / (std[colour] ?? 1);
      }
    }
  }
  return pixels;
}
