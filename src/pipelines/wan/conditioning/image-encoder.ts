import type { Dialect } from '../../../graph/dialect.js';
import { Graph, type Value } from '../../../graph/graph.js';
import { add, layerNorm, transpose } from '../../../graph/ops.js';
import { type Scope, Weights } from '../../../graph/weights.js';
import type { Backend } from '../../../runtime/backend.js';
import { createSession, type NetworkSession, outputOf } from '../../../runtime/session.js';
import { clipLayer } from '../../common/clip-layer.js';
import type { WanCheckpoint } from '../checkpoint/checkpoint.js';
import type { ImageEncoderConfig } from '../model/config.js';
import { clipPixels } from './clip-pixels.js';

/**
 * CLIP's image tower over one picture. Input: `pixels` [1, 3, S, S], normalised. Output: `states` [T, C], those that enter the
 * last layer: the picture's own token first, then one for each patch.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L743
 */
export function buildImageTower(graph: Graph, w: Scope, config: ImageEncoderConfig): void {
  const { hidden_size: width, image_size: side, patch_size: patch } = config;
  const patches = (side / patch) ** 2;
  const tokens = 1 + patches;
  const pixels = graph.floatInput('pixels', [1, 3, side, side]);

  // 1. patch, class and position embeddings: [1, T, C]
  const e = w.at('embeddings');
  const rows = transpose(graph, patchRows(e.at('patch_embedding'), pixels, config), [0, 2, 1], [1, patches, width]);
  const own = e.tensor('class_embedding', [width], [1, 1, width]);
  let x = graph.node('Concat', [own, rows], [1, tokens, width], { attributes: { axis: 1 } });
  x = add(graph, x, e.tensor('position_embedding.weight', [tokens, width]));
  x = layerNorm(w.at('pre_layrnorm'), x, { eps: config.layer_norm_eps });

  // 2. layers; nobody looks at what the last one makes of it
  for (let i = 0; i < config.num_hidden_layers - 1; i += 1) x = clipLayer(w.at('encoder.layers', i), x, config);
  graph.output('states', graph.reshape(x, [tokens, width]));
}

// x: [1, 3, S, S] -> [1, C, patches]
function patchRows(
  w: Scope,
  x: Value,
  { hidden_size: width, image_size: side, patch_size: patch }: ImageEncoderConfig,
): Value {
  const { graph } = w;
  const inputs = [x, w.tensor('weight', [width, 3, patch, patch])];
  const grid = [side / patch, side / patch] as const;
  const attributes = { kernel_shape: [patch, patch], strides: [patch, patch] };
  return graph.reshape(graph.node('Conv', inputs, [1, width, ...grid], { attributes }), [1, width, grid[0] * grid[1]]);
}

/** The image encoder, loaded: a picture in, what the transformer looks at out. */
export class ImageEncoder {
  readonly #session: NetworkSession;
  readonly #config: ImageEncoderConfig;

  constructor(session: NetworkSession, config: ImageEncoderConfig) {
    this.#session = session;
    this.#config = config;
  }

  /** @param rgb row-major uint8 [height, width, 3] -> [T, C] */
  async encode(rgb: Uint8Array, size: { width: number; height: number }): Promise<Float32Array> {
    const { image_size: side } = this.#config;
    const pixels = { data: clipPixels({ rgb, ...size }, this.#config), shape: [1, 3, side, side] };
    return outputOf(await this.#session.run({ pixels }), 'states', 'the image encoder');
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}

/**
 * The encoder's graph over its file; undefined for a model that looks at no pictures. Reads headers only, no weights.
 * @throws InferenceError CHECKPOINT_INVALID that lists every problem of the file
 */
export async function buildImageEncoder(checkpoint: WanCheckpoint, dialect: Dialect): Promise<Weights | undefined> {
  const { imageEncoder } = checkpoint.config;
  if (imageEncoder === undefined) return undefined;
  const weights = new Weights(new Graph('image_encoder', dialect), await checkpoint.readWeights('image_encoder'), {
    unused: unusedImageEncoderKeys(imageEncoder),
    // Single files carry whatever their makers' tools left in them.
    refusesSpare: checkpoint.layout === 'diffusers',
  });
  buildImageTower(weights.graph, weights.root, imageEncoder);
  weights.check();
  return weights;
}

/** Loads the encoder. @throws InferenceError CHECKPOINT_INVALID */
export async function loadImageEncoder(checkpoint: WanCheckpoint, backend: Backend): Promise<ImageEncoder> {
  const weights = await buildImageEncoder(checkpoint, backend.dialect);
  const { imageEncoder } = checkpoint.config;
  if (weights === undefined || imageEncoder === undefined) throw new Error(`${checkpoint.path} looks at no pictures`);
  return new ImageEncoder(await createSession(weights.graph, backend), imageEncoder);
}

/** The last layer and the norm behind it; a buffer that older exports stored; the whole model's projection. */
function unusedImageEncoderKeys({ num_hidden_layers: layers }: ImageEncoderConfig): readonly RegExp[] {
  return [new RegExp(`^(encoder\\.layers\\.${layers - 1}|post_layernorm)\\.`), /^embeddings\.position_ids$/, /^head$/];
}
