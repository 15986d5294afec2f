import type { Graph, Value } from '../../../graph/graph.js';
import { add, linear, mul } from '../../../graph/ops.js';
import { patchEmbedding } from '../../../graph/ops-3d.js';
import type { Shape } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { TransformerConfig } from './config.js';
import { type BlockConditions, transformerBlock } from './transformer-block.js';

/**
 * VACE's control branch: blocks like the transformer's own that begin with its patches and those of the control, and after each
 * a projection of what it came to, the hint that is added behind one of the transformer's own blocks. Inputs: `control`
 * [1, 96, F, 2h, 2w], the same for all texts; `control_scale` [1], what hints are multiplied by.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/transformers/transformer_wan_vace.py#L340
 */
export class VaceBranch {
  readonly #w: Scope;
  readonly #conditions: BlockConditions;
  readonly #config: TransformerConfig;
  readonly #scale: Value;
  readonly #patches: Value;
  /** float32 [B, F*h*w, D] */
  #state: Value;

  /**
   * @param patches the transformer's own, [B, F*h*w, D]
   * @param grid frames, rows and columns of patches
   */
  constructor(
    graph: Graph,
    w: Scope,
    patches: Value,
    grid: Shape,
    conditions: BlockConditions,
    config: TransformerConfig,
  ) {
    this.#w = w;
    this.#conditions = conditions;
    this.#config = config;
    this.#patches = patches;
    const control = graph.input('control', 'f32', [1, config.vace_in_channels, 'F', '2h', '2w']);
    this.#scale = graph.input('control_scale', 'f32', [1]);
    this.#state = patchEmbedding(w.at('vace_patch_embedding'), control, Number(patches.shape.at(-1)), 2, grid);
  }

  /**
   * The hint that is added behind a layer of the transformer, [B, F*h*w, D]; undefined for a layer without one. Called in order,
   * before each layer is built: the runtime then computes a hint where it is used. Computed beforehand, all hints would be in
   * memory together, each as large as the video's hidden state.
   */
  hint(layer: number): Value | undefined {
    const i = this.#config.vace_layers.indexOf(layer);
    if (i < 0) return undefined;
    const { graph } = this.#w;
    const block = this.#w.at('vace_blocks', i);
    const width = Number(this.#patches.shape.at(-1));
    const projected = (name: string) => graph.wide(linear(block.at(name), graph.narrow(this.#state), width));
    const c = i === 0 ? add(graph, projected('proj_in'), this.#patches) : this.#state;
    this.#state = transformerBlock(block, c, this.#conditions, this.#config);
    return mul(graph, projected('proj_out'), this.#scale);
  }
}
