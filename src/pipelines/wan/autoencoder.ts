import { CarriedTensors, type NetworkSession, outputOf, type SessionOptions } from '../../runtime/session.js';
import { onceDone } from '../../std/once-done.js';
import type { Network } from '../common/build-networks.js';
import { isTooNarrow } from '../common/not-finite.js';
import type { SessionGroup } from '../common/session-group.js';
import type { VideoEncoder } from './conditioning/condition-networks.js';
import type { VaeConfig } from './model/config.js';
import { latentFrame, normalizedLatents, type VideoSize, videoOfFrames } from './model/latents.js';
import { type ChunkKind, FRAME, framesIn, framesPerLatent, NEXT, PAST } from './model/vae.js';
import type { WanGraphs } from './weights.js';

/** Sessions of one way: for the first chunk and for later ones. */
type Chunks = Readonly<Record<ChunkKind, NetworkSession>>;

/** Decoders are opened at once, encoders with the first reference, which many servers never see. */
interface Sessions {
  readonly decoders: Chunks;
  /** In float32; undefined where the decoders are. */
  readonly openWideDecoders: (() => Promise<Chunks>) | undefined;
  readonly openEncoders: () => Promise<Chunks>;
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
    const { vae_decoder_first, vae_decoder_later, vae_encoder_first, vae_encoder_later } = graphs;
    const [first, later] = [vae_decoder_first, vae_decoder_later].map((network) =>
      sessions.wideOnDemand(network, carriesPast(network.graph)),
    );
    const open = async (...networks: readonly Network[]): Promise<Chunks> => {
      const [of, after] = (await sessions.openAlike(networks, carriesPast)) as [NetworkSession, NetworkSession];
      return { first: of, later: after };
    };
    const decoders = await open(vae_decoder_first, vae_decoder_later);
    const openWideDecoders = first && later && (async () => ({ first: await first(), later: await later() }));
    const openEncoders = onceDone(() => open(vae_encoder_first, vae_encoder_later));
    return new Autoencoder({ decoders, openWideDecoders, openEncoders }, config);
  }

  /**
   * Latents [16, F, h, w] to the 1 + 4(F - 1) frames of the video: the first one alone, then four at a time, each planar float32
   * [3, 8h, 8w], -1 to 1. Where half precision is too narrow for a video, it is decoded once more in float32.
   *
   * @param size of the video in pixels
   * @param signal ends the run. Omitted: nothing does
   */
  async *decodeChunks(
    latents: Float32Array,
    size: VideoSize,
    signal?: AbortSignal,
  ): AsyncGenerator<readonly Float32Array[]> {
    let given = 0;
    try {
      for await (const frames of this.#decode(this.#sessions.decoders, latents, size, signal)) {
        yield frames;
        given += 1;
      }
    } catch (error) {
      const { openWideDecoders } = this.#sessions;
      if (!isTooNarrow(error) || openWideDecoders === undefined) throw error;
      // What a chunk needs of the past is lost: the video is decoded from its beginning, and given from where it ended.
      const wide = await openWideDecoders();
      let chunk = 0;
      for await (const frames of this.#decode(wide, latents, size, signal)) {
        if (chunk >= given) yield frames;
        chunk += 1;
      }
    }
  }

  async *#decode(
    decoders: Chunks,
    latents: Float32Array,
    size: VideoSize,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<readonly Float32Array[]> {
    const { frames, height, width } = this.latentSize(size);
    const carried = new CarriedTensors();
    try {
      for (let at = 0; at < frames; at += 1) {
        const kind = at === 0 ? 'first' : 'later';
        const data = latentFrame(latents, at, frames, this.#config);
        const shape = [1, this.#config.z_dim, height, width];
        const outputs = await decoders[kind].run({ latents: { data, shape } }, { carried, signal });
        yield Array.from({ length: framesIn(this.#config, kind) }, (_, i) =>
          outputOf(outputs, `${FRAME}${i}`, 'the VAE decoder'),
        );
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
        if (chunk.length < framesIn(this.#config, kind)) continue;
        const session = (await this.#sessions.openEncoders())[kind];
        const shape = [1, colours, height, width];
        const feeds = Object.fromEntries(chunk.map((data, i) => [`${FRAME}${i}`, { data, shape }]));
        const outputs = await session.run(feeds, { carried, signal });
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
