import { CarriedTensors, type Feed, type NetworkSession, outputOf } from '../../runtime/session.js';
import { join32 } from '../../std/concat-float32.js';
import { elementCount } from '../../std/element-count.js';
import type { OnDemandSession, SessionGroup } from '../common/session-group.js';
import { timestepEmbedding } from '../common/timestep-embedding.js';
import { zeroResiduals } from './control/controlnet.js';
import type { BatchImageTokens } from './control/image-prompts.js';
import { type BatchControl, scaleFeed } from './control/job-controls.js';
import type { SdxlConfig, UNetConfig } from './model/config.js';
import { DEEP, residualName, shallowResidualCount } from './model/unet.js';
import type { SdxlGraphs } from './weights.js';

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
  /** Of an IP-Adapter. Omitted: no row has an image. */
  readonly imageTokens?: BatchImageTokens | undefined;
  /** Ends the run. Omitted: nothing does. */
  readonly signal?: AbortSignal | undefined;
  /** The deep features of a whole run over the same rows: what is below the first block is left out. Omitted: the run is whole. */
  readonly deep?: Float32Array | undefined;
  /** Copies the deep features from the device. */
  readonly keepsDeep?: boolean;
}

export interface UNetResult {
  /** [B, 4, height, width] */
  readonly noise: Float32Array;
  /** [B, C1, height, width], where the call keeps them. */
  readonly deep: Float32Array | undefined;
}

/** The UNet, loaded. */
export class Denoiser {
  readonly #session: NetworkSession;
  readonly #openShallow: OnDemandSession;
  readonly #config: UNetConfig;
  readonly #imagePrompt: SdxlConfig['imagePrompt'];
  readonly #zeros: Readonly<Record<string, Feed>>;

  private constructor(
    session: NetworkSession,
    openShallow: OnDemandSession,
    { unet: config, imagePrompt }: Pick<SdxlConfig, 'unet' | 'imagePrompt'>,
  ) {
    this.#imagePrompt = imagePrompt;
    this.#session = session;
    this.#openShallow = openShallow;
    this.#config = config;
    this.#zeros = zeroResiduals(config);
  }

  static async open(
    { unet, unet_shallow }: Pick<SdxlGraphs, 'unet' | 'unet_shallow'>,
    sessions: SessionGroup,
    config: Pick<SdxlConfig, 'unet' | 'imagePrompt'>,
  ): Promise<Denoiser> {
    return new Denoiser(await sessions.open(unet), sessions.onDemand(unet_shallow), config);
  }

  /** One run of the UNet over a batch. */
  async predictNoise(call: UNetCall): Promise<UNetResult> {
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
    const own = { ...feeds, latents, ...this.#imageFeeds(call.imageTokens, batch) };
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
      const { deep, keepsDeep = false } = call;
      if (deep !== undefined) {
        const shape = [batch, deep.length / batch / (call.height * call.width), ...size];
        const above = { ...firstResiduals(residuals, config), [DEEP]: { data: deep, shape } };
        const session = await this.#openShallow();
        const outputs = await session.run({ ...own, ...above }, { carried, signal });
        return { noise: outputOf(outputs, 'noise', 'the shallow UNet'), deep: undefined };
      }
      const wanted = keepsDeep ? ['noise', DEEP] : ['noise'];
      const outputs = await this.#session.run({ ...own, ...residuals }, { carried, signal, outputs: wanted });
      return { noise: outputOf(outputs, 'noise', 'the UNet'), deep: outputs[DEEP] };
    } finally {
      carried.release();
    }
  }

  /** A UNet with an IP-Adapter takes tokens in every run; with a scale of 0 they do nothing. */
  #imageFeeds(images: BatchImageTokens | undefined, batch: number): Readonly<Record<string, Feed>> {
    if (this.#imagePrompt === undefined) return {};
    const shape = [batch, this.#imagePrompt.projection.tokens, this.#config.cross_attention_dim];
    return {
      image_tokens: { data: images?.tokens ?? new Float32Array(elementCount(shape)), shape },
      image_scale: { data: images?.scales ?? new Float32Array(batch), shape: [batch, 1, 1] },
    };
  }

  /** As many channels as there are. */
  #latents(data: Float32Array, batch: number, size: readonly number[]): Feed {
    const area = elementCount(size);
    return { data, shape: [batch, data.length / batch / area, ...size] };
  }
}

/** The residuals that a shallow run takes. */
function firstResiduals(residuals: Readonly<Record<string, Feed>>, config: UNetConfig): Readonly<Record<string, Feed>> {
  const names = Array.from({ length: shallowResidualCount(config) }, (_, i) => residualName(i));
  return Object.fromEntries(Object.entries(residuals).filter(([name]) => names.includes(name)));
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
