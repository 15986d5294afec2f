import { CarriedTensors, type NetworkSession, outputOf, type SessionOptions } from '../../runtime/session.js';
import { join32 } from '../../std/concat-float32.js';
import type { Network } from '../common/build-networks.js';
import { isNotFinite } from '../common/not-finite.js';
import type { OnDemandSession, SessionGroup } from '../common/session-group.js';
import type { VideoEncoder } from './conditioning/condition-networks.js';
import type { VaeConfig } from './model/config.js';
import { latentFrame, normalizedLatents, split, type VideoSize, videoOfFrames } from './model/latents.js';
import { type ChunkKind, framesPerLatent, NEXT, PAST } from './model/vae.js';
import type { WanGraphs } from './weights.js';

/** Decoders are opened at once, encoders with the first reference, which many servers never see. */
interface Sessions {
  readonly decoders: Readonly<Record<ChunkKind, NetworkSession>>;
  /** In float32; undefined where the decoders are. */
  readonly openWideDecoder: Readonly<Record<ChunkKind, OnDemandSession>> | undefined;
  readonly openEncoder: Readonly<Record<ChunkKind, OnDemandSession>>;
}

export interface DecodeOptions {
  /** Latents of each run after the first; a run's memory grows with them. Omitted: 1. */
  readonly perRun?: number | undefined;
  /** Ends the run. Omitted: nothing does. */
  readonly signal?: AbortSignal | undefined;
}

/** The VAE, loaded. It works through a video in chunks, so that its memory does not grow with the video. */
export class Autoencoder implements VideoEncoder {
  readonly #sessions: Sessions;
  readonly #config: VaeConfig;

  private constructor(sessions: Sessions, config: VaeConfig) {
    this.#sessions = sessions;
    this.#config = config;
  }

  static async open(graphs: WanGraphs, sessions: SessionGroup, config: VaeConfig): Promise<Autoencoder> {
    const open = (network: Network) => sessions.open(network, carriesPast(network.graph));
    const onDemand = (network: Network) => sessions.onDemand(network, carriesPast(network.graph));
    const decoders = { first: await open(graphs.vae_decoder_first), later: await open(graphs.vae_decoder_later) };
    const openEncoder = { first: onDemand(graphs.vae_encoder_first), later: onDemand(graphs.vae_encoder_later) };
    const wide = (network: Network) => sessions.wideOnDemand(network, carriesPast(network.graph));
    const [first, later] = [wide(graphs.vae_decoder_first), wide(graphs.vae_decoder_later)];
    const openWideDecoder = first && later && { first, later };
    return new Autoencoder({ decoders, openWideDecoder, openEncoder }, config);
  }

  /**
   * Latents [16, F, h, w] to the 1 + 4(F - 1) frames of the video: the first one alone, then four at a time, each planar float32
   * [3, 8h, 8w], -1 to 1. Where half precision is too narrow for a video, it is decoded once more in float32.
   *
   * @param size of the video in pixels
   */
  async *decodeChunks(
    latents: Float32Array,
    size: VideoSize,
    options: DecodeOptions = {},
  ): AsyncGenerator<readonly Float32Array[]> {
    let given = 0;
    try {
      for await (const frames of this.#decode(this.#sessions.decoders, latents, size, options)) {
        yield frames;
        given += 1;
      }
    } catch (error) {
      const { openWideDecoder } = this.#sessions;
      if (!isNotFinite(error) || openWideDecoder === undefined) throw error;
      // What a chunk needs of the past is lost: the video is decoded from its beginning, and given from where it ended.
      const wide = { first: await openWideDecoder.first(), later: await openWideDecoder.later() };
      let chunk = 0;
      for await (const frames of this.#decode(wide, latents, size, options)) {
        if (chunk >= given) yield frames;
        chunk += 1;
      }
    }
  }

  async *#decode(
    decoders: Readonly<Record<ChunkKind, NetworkSession>>,
    latents: Float32Array,
    size: VideoSize,
    { perRun = 1, signal }: DecodeOptions,
  ): AsyncGenerator<readonly Float32Array[]> {
    const { frames, height, width } = this.latentSize(size);
    const carried = new CarriedTensors();
    try {
      for (let at = 0; at < frames; at += at === 0 ? 1 : perRun) {
        const count = at === 0 ? 1 : Math.min(perRun, frames - at);
        const chunk = Array.from({ length: count }, (_, i) => latentFrame(latents, at + i, frames, this.#config));
        const session = decoders[at === 0 ? 'first' : 'later'];
        const shape = [count, this.#config.z_dim, height, width];
        const outputs = await session.run({ latents: { data: join32(chunk), shape } }, { carried, signal });
        yield split(outputOf(outputs, 'frames', 'the VAE decoder'), 3 * size.height * size.width);
      }
    } finally {
      carried.release();
    }
  }

  /**
   * The frames of a video, 1 + 4k of them, each planar float32 [3, height, width] of -1 to 1, to the means of their latents, as
   * the VAE returns them, [16, 1 + k, h, w]. Frames are taken four at a time as they come.
   *
   * @param size of a frame in pixels
   */
  async encode(
    frames: Iterable<Float32Array> | AsyncIterable<Float32Array>,
    size: Omit<VideoSize, 'frames'>,
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    const means: Float32Array[] = [];
    for await (const mean of this.encodeChunks(frames, size, signal)) means.push(mean);
    return videoOfFrames(means, this.#config.z_dim);
  }

  /** The same means one latent at a time, [16, h, w] each, for callers that can be cancelled between the runs. */
  async *encodeChunks(
    frames: Iterable<Float32Array> | AsyncIterable<Float32Array>,
    { height, width }: Omit<VideoSize, 'frames'>,
    signal?: AbortSignal,
  ): AsyncGenerator<Float32Array> {
    const { in_channels: colours } = this.#config;
    const carried = new CarriedTensors();
    let kind: ChunkKind = 'first';
    try {
      let chunk: Float32Array[] = [];
      for await (const frame of frames) {
        chunk.push(frame);
        if (chunk.length < (kind === 'first' ? 1 : framesPerLatent(this.#config))) continue;
        const session = await this.#sessions.openEncoder[kind]();
        const shape = [chunk.length, colours, height, width];
        const outputs = await session.run({ frames: { data: join32(chunk), shape } }, { carried, signal });
        const moments = outputOf(outputs, 'moments', 'the VAE encoder');
        // The other half is the logarithm of the variance: known frames are given by the mode.
        yield moments.slice(0, moments.length / 2);
        [chunk, kind] = [[], 'later'];
      }
      if (chunk.length > 0 || kind === 'first') {
        throw new Error(`${chunk.length} frames are left over: a video has one and a multiple of four`);
      }
    } finally {
      carried.release();
    }
  }

  /** The means of a video's latents as the transformer takes them, of mean 0 and deviation 1. */
  async encodeLatents(
    frames: Iterable<Float32Array> | AsyncIterable<Float32Array>,
    size: Omit<VideoSize, 'frames'>,
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    return normalizedLatents(await this.encode(frames, size, signal), this.#config);
  }

  /** The size of a video in pixels, in latents. */
  latentSize({ frames, height, width }: VideoSize): VideoSize {
    const side = 2 ** (this.#config.dim_mult.length - 1);
    return { frames: 1 + (frames - 1) / framesPerLatent(this.#config), height: height / side, width: width / side };
  }
}

/** Outputs that carry a layer's past stay on the device, for the inputs of the same layer in the next run. */
function carriesPast({ outputs }: Network['graph']): SessionOptions {
  const kept = outputs.filter((output) => output.startsWith(NEXT));
  return { holds: new Map(kept.map((output) => [output, PAST + output.slice(NEXT.length)])) };
}
