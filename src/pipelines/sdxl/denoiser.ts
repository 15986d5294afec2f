import { CarriedTensors, type Feed, type NetworkSession, outputOf } from '../../runtime/session.js';
import { join32 } from '../../std/concat-float32.js';
import { timestepEmbedding } from '../common/timestep-embedding.js';
import { zeroResiduals } from './control/controlnet.js';
import { type BatchControl, scaleFeed } from './control/job-controls.js';
import type { UNetConfig } from './model/config.js';

export interface UNetCall {
  /** [B, 4, height, width] */
  readonly latents: Float32Array;
  /** For a UNet of 9 channels, [B, 5, height, width]: what is drawn anew, and the latents of the rest. Omitted: it takes none. */
  readonly maskChannels?: Float32Array | undefined;
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
    const size = [call.height, call.width];
    const feeds = {
      latents: this.#latents(call.latents, batch, size),
      timestep: { data: join32(new Array<Float32Array>(batch).fill(timestep)), shape: [batch, channels] },
      sizes: { data: join32(sizes), shape: [batch, 6 * config.addition_time_embed_dim] },
      context: { data: call.context, shape: [batch, call.context.length / batch / width, width] },
      pooled: { data: call.pooled, shape: [batch, call.pooled.length / batch] },
    };
    const { controls = [], maskChannels, signal } = call;
    const whole = maskChannels === undefined ? call.latents : besideEachOther(call.latents, maskChannels, batch);
    const latents = this.#latents(whole, batch, size);
    const carried = new CarriedTensors();
    try {
      for (const [i, { net, hint, scales, modes }] of controls.entries()) {
        const shape = [batch, hint.length / batch / (call.height * call.width), ...size];
        const before = i === 0 ? this.#zeros : {};
        await net.run(
          { ...feeds, ...before },
          { hint: { data: hint, shape }, scale: scaleFeed(scales), modes },
          { carried, signal },
        );
      }
      const residuals = controls.length === 0 ? this.#zeros : {};
      const outputs = await this.#session.run({ ...feeds, latents, ...residuals }, { carried, signal });
      return outputOf(outputs, 'noise', 'the UNet');
    } finally {
      carried.release();
    }
  }

  /** As many channels as there are. */
  #latents(data: Float32Array, batch: number, size: readonly number[]): Feed {
    const area = size.reduce((product, dim) => product * dim, 1);
    return { data, shape: [batch, data.length / batch / area, ...size] };
  }
}

// [B, 4, H, W] and [B, 5, H, W] -> [B, 9, H, W]
function besideEachOther(a: Float32Array, b: Float32Array, batch: number): Float32Array {
  const rows = Array.from({ length: batch }, (_, i) => [row(a, i, batch), row(b, i, batch)]);
  return join32(rows.flat());
}

function row(values: Float32Array, i: number, batch: number): Float32Array {
  const length = values.length / batch;
  return values.subarray(i * length, (i + 1) * length);
}
