import { CarriedTensors, type Feed, type NetworkSession, outputOf } from '../../runtime/session.js';
import { join32 } from '../../std/concat-float32.js';
import { timestepEmbedding } from '../common/timestep-embedding.js';
import { zeroResiduals } from './control/controlnet.js';
import { type BatchControl, scaleFeed } from './control/job-controls.js';
import type { UNetConfig } from './model/config.js';

export interface UNetCall {
  /** [B, 4, height, width] */
  readonly latents: Float32Array;
  /** In latents. */
  readonly height: number;
  readonly width: number;
  readonly timestep: number;
  /** [B, T, X] */
  readonly context: Float32Array;
  /** [B, P] */
  readonly pooled: Float32Array;
  /** B rows of six. */
  readonly timeIds: readonly (readonly number[])[];
  /** ControlNets that act on some row. Omitted: none. */
  readonly controls?: readonly BatchControl[] | undefined;
  /** Ends the run. Omitted: nothing does. */
  readonly signal?: AbortSignal | undefined;
}

/** The UNet, loaded. */
export class Denoiser {
  readonly #session: NetworkSession;
  readonly #config: UNetConfig;
  readonly #zeros: Readonly<Record<string, Feed>>;

  constructor(session: NetworkSession, config: UNetConfig) {
    this.#session = session;
    this.#config = config;
    this.#zeros = zeroResiduals(config);
  }

  /** One run of the UNet over a batch. -> [B, 4, height, width] */
  async predictNoise(call: UNetCall): Promise<Float32Array> {
    const config = this.#config;
    const batch = call.timeIds.length;
    const options = { flipSinToCos: config.flip_sin_to_cos, freqShift: config.freq_shift };
    const [channels = 0] = config.block_out_channels;
    const timestep = timestepEmbedding(call.timestep, channels, options);
    const sizes = call.timeIds.flatMap((ids) =>
      ids.map((id) => timestepEmbedding(id, config.addition_time_embed_dim, options)),
    );
    const width = config.cross_attention_dim;
    const feeds = {
      latents: { data: call.latents, shape: [batch, config.in_channels, call.height, call.width] },
      timestep: { data: join32(new Array<Float32Array>(batch).fill(timestep)), shape: [batch, channels] },
      sizes: { data: join32(sizes), shape: [batch, 6 * config.addition_time_embed_dim] },
      context: { data: call.context, shape: [batch, call.context.length / batch / width, width] },
      pooled: { data: call.pooled, shape: [batch, call.pooled.length / batch] },
    };
    const { controls = [], signal } = call;
    const carried = new CarriedTensors();
    const size = [call.height, call.width];
    try {
      for (const [i, { net, hint, scales }] of controls.entries()) {
        const shape = [batch, hint.length / batch / (call.height * call.width), ...size];
        const before = i === 0 ? this.#zeros : {};
        await net.run(
          { ...feeds, ...before },
          { hint: { data: hint, shape }, scale: scaleFeed(scales) },
          { carried, signal },
        );
      }
      const residuals = controls.length === 0 ? this.#zeros : {};
      const outputs = await this.#session.run({ ...feeds, ...residuals }, { carried, signal });
      return outputOf(outputs, 'noise', 'the UNet');
    } finally {
      carried.release();
    }
  }
}
