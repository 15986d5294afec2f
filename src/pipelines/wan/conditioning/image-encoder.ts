import { type NetworkSession, outputOf } from '../../../runtime/session.js';
import { join32 } from '../../../std/concat-float32.js';
import { clipPixels } from '../../common/clip-pixels.js';
import type { ImageEncoderConfig } from '../../common/image-encoder-config.js';

/** CLIP's image encoder. It is loaded for the images of a job and released after them: a job needs it once. */
export class ImageEncoder {
  readonly #open: () => Promise<NetworkSession>;
  readonly #config: ImageEncoderConfig;

  constructor(open: () => Promise<NetworkSession>, config: ImageEncoderConfig) {
    this.#open = open;
    this.#config = config;
  }

  /**
   * Encodes images to the states that the transformer attends to, [I, image_dim], one image after the other.
   * @param images row-major uint8 [height, width, 3] each
   */
  async encode(images: readonly Uint8Array[], size: { width: number; height: number }): Promise<Float32Array> {
    const { image_size: side } = this.#config;
    const session = await this.#open();
    try {
      const states: Float32Array[] = [];
      for (const rgb of images) {
        const pixels = { data: clipPixels({ rgb, ...size }, this.#config), shape: [1, 3, side, side] };
        states.push(outputOf(await session.run({ pixels }), 'states', 'the image encoder'));
      }
      return join32(states);
    } finally {
      await session.release();
    }
  }
}
