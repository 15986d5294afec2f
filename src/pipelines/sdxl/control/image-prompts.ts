import { outputOf } from '../../../runtime/session.js';
import { clipPixels } from '../../common/clip-pixels.js';
import { imagePositions } from '../../common/image-tower.js';
import type { OnDemandSession } from '../../common/session-group.js';
import type { RequestImagePrompt } from '../../pipeline.js';
import type { ImagePromptConfig } from '../model/config.js';

/** The tokens of an image, and those that stand for none beside a negative prompt; [K, X] each. */
export interface JobImagePrompt {
  readonly tokens: Float32Array;
  readonly none: Float32Array;
  readonly scale: number;
}

/** The image encoder and the projection of an IP-Adapter. Both open with the first image. */
export class ImagePrompts {
  readonly #encoder: OnDemandSession;
  readonly #projection: OnDemandSession;
  readonly #config: ImagePromptConfig;
  #none: Float32Array | undefined;

  constructor(encoder: OnDemandSession, projection: OnDemandSession, config: ImagePromptConfig) {
    this.#encoder = encoder;
    this.#projection = projection;
    this.#config = config;
  }

  /**
   * No image is an embedding of zeros for a base adapter, and the states of an image of zeros for a plus one.
   * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py#L524
   */
  async encode({ scale, ...image }: RequestImagePrompt, signal?: AbortSignal): Promise<JobImagePrompt> {
    const { encoder, projection } = this.#config;
    const side = encoder.image_size;
    if (this.#none === undefined) {
      const encoded =
        projection.kind === 'base'
          ? new Float32Array(encoder.projection_dim)
          : await this.#encode(new Float32Array(3 * side * side), signal);
      this.#none = await this.#project(encoded, signal);
    }
    const encoded = await this.#encode(clipPixels(image, encoder), signal);
    return { tokens: await this.#project(encoded, signal), none: this.#none, scale };
  }

  async #encode(pixels: Float32Array, signal?: AbortSignal): Promise<Float32Array> {
    const { encoder, projection } = this.#config;
    const side = encoder.image_size;
    const session = await this.#encoder();
    const outputs = await session.run({ pixels: { data: pixels, shape: [1, 3, side, side] } }, { signal });
    return outputOf(outputs, projection.kind === 'base' ? 'embeds' : 'states', 'the image encoder');
  }

  async #project(encoded: Float32Array, signal?: AbortSignal): Promise<Float32Array> {
    const { encoder, projection } = this.#config;
    const session = await this.#projection();
    const feeds =
      projection.kind === 'base'
        ? { embeds: { data: encoded, shape: [1, encoder.projection_dim] } }
        : { states: { data: encoded, shape: [imagePositions(encoder), encoder.hidden_size] } };
    return outputOf(await session.run(feeds, { signal }), 'tokens', "the IP-Adapter's projection");
  }
}

/** What a run attends to besides the text. */
export interface BatchImageTokens {
  /** [B, K, X] */
  readonly tokens: Float32Array;
  /** [B]: 0 for a row without an image. */
  readonly scales: Float32Array;
}

/**
 * The image tokens of a batch. Undefined if no row has an image.
 * @param rows of the batch: its image's prompt, and whether it is the row of a negative prompt
 */
export function batchImageTokens(
  rows: readonly { readonly imagePrompt: JobImagePrompt | undefined; readonly isNegative: boolean }[],
): BatchImageTokens | undefined {
  const some = rows.find(({ imagePrompt }) => imagePrompt !== undefined)?.imagePrompt;
  if (some === undefined) return undefined;
  const size = some.tokens.length;
  const tokens = new Float32Array(rows.length * size);
  for (const [i, { imagePrompt, isNegative }] of rows.entries())
    if (imagePrompt !== undefined) tokens.set(isNegative ? imagePrompt.none : imagePrompt.tokens, i * size);
  return { tokens, scales: Float32Array.from(rows, ({ imagePrompt }) => imagePrompt?.scale ?? 0) };
}
