import { setImmediate } from 'node:timers/promises';
import { isOutOfMemory } from '../../runtime/out-of-memory.js';
import { CarriedTensors, type NetworkSession, outputOf, type SessionOptions } from '../../runtime/session.js';
import { scaled, type Tile } from '../../std/plane.js';
import type { Network } from '../common/build-networks.js';
import type { FrameForm } from '../common/frame-form.js';
import type { MemoryRelief } from '../common/memory-relief.js';
import { isTooNarrow } from '../common/not-finite.js';
import type { SessionGroup } from '../common/session-group.js';
import { type FrameParts, layoutsOf } from '../frame-parts.js';
import type { VideoEncoder } from './conditioning/condition-networks.js';
import { COLOURS, type VaeConfig } from './model/config.js';
import { latentFrame, normalizedLatents, type VideoSize, videoOfFrames } from './model/latents.js';
import { type ChunkKind, FRAME, framesIn, framesPerLatent, NEXT, PAST, pixelsPerLatent } from './model/vae.js';
import type { WanGraphs } from './weights.js';
import { type Window, windowOf } from './windows.js';

/** Sessions of one way: for the first chunk and for later ones. */
export type Chunks = Readonly<Record<ChunkKind, NetworkSession>>;

/** Decoders are opened at once, encoders with the first reference, which many servers never see. */
interface Sessions {
  readonly decoders: Chunks;
  /** In float32; undefined where the decoders are. */
  readonly openWideDecoders: (() => Promise<Chunks>) | undefined;
  readonly openEncoders: () => Promise<Chunks>;
  /** Of the decoders. */
  readonly parts: FrameParts;
  readonly relief: MemoryRelief;
}

/** What one run of the decoder brings. */
export interface DecodedChunk<T> {
  /** Whole frames; none while there are other parts to decode. */
  readonly frames: readonly T[];
  /** How far the decode is, in frames of latents. */
  readonly done: number;
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
    const openPair = sessions.onDemandAlike([vae_encoder_first, vae_encoder_later], carriesPast);
    const openEncoders = async (): Promise<Chunks> => {
      const [of, after] = (await openPair()) as [NetworkSession, NetworkSession];
      return { first: of, later: after };
    };
    const { parts } = vae_decoder_later;
    if (parts === undefined) throw new Error('a decoder whose frames have no parts');
    return new Autoencoder({ decoders, openWideDecoders, openEncoders, parts, relief: sessions.relief }, config);
  }

  /**
   * Latents [16, F, h, w] to the 1 + 4(F - 1) frames of the video, 8h pixels high and 8w wide: the first one alone, then four at a
   * time. Large frames are decoded in parts, without a seam. Where half precision is too narrow for a video, it is decoded once more in
   * float32; where memory runs out, in smaller parts.
   *
   * @param size of the video in pixels
   * @param signal ends the run. Omitted: nothing does
   */
  async *decodeChunks<T>(
    form: FrameForm<T>,
    latents: Float32Array,
    size: VideoSize,
    signal?: AbortSignal,
  ): AsyncGenerator<DecodedChunk<T>> {
    const { decoders, openWideDecoders, relief } = this.#sessions;
    const layouts = layoutsOf(this.latentSize(size), this.#sessions.parts);
    let isWide = false;
    let [given, done] = [0, 0];
    for (let rung = 0; ; ) {
      const parts = layouts[rung] as readonly Tile[];
      try {
        // What a chunk needs of the past is lost: the video is decoded from its beginning, and given from where it ended.
        let chunk = 0;
        const sessions = isWide && openWideDecoders !== undefined ? await openWideDecoders() : decoders;
        for await (const { frames, done: now } of this.decodeWith(form, sessions, latents, size, { signal, parts })) {
          if (frames.length > 0) chunk += 1;
          const isNew = chunk > given;
          [given, done] = [Math.max(given, chunk), Math.max(done, now)];
          yield { frames: isNew ? frames : [], done };
        }
        const side = Math.max(...parts.flatMap(({ width, height }) => [width, height]));
        if (rung > 0) relief.note(`decoded_in_tiles_of_${side * this.#scale}_pixels`);
        return;
      } catch (error) {
        if (isTooNarrow(error) && openWideDecoders !== undefined && !isWide) isWide = true;
        else if (isOutOfMemory(error) && rung + 1 < layouts.length) rung += 1;
        else throw error;
      }
    }
  }

  /**
   * The same in one way, whatever comes of it. Each part goes through the whole video before the next one, so that the device holds
   * the past of one part; until the last one, no frames are given.
   * @param way `parts` of the latents that are decoded in turn; omitted, frames are decoded whole
   */
  async *decodeWith<T>(
    form: FrameForm<T>,
    decoders: Chunks,
    latents: Float32Array,
    size: VideoSize,
    { signal, parts }: { readonly signal?: AbortSignal | undefined; readonly parts?: readonly Tile[] | undefined } = {},
  ): AsyncGenerator<DecodedChunk<T>> {
    const whole = this.latentSize(size);
    const all = parts ?? [{ ...whole, x: 0, y: 0 }];
    // Frames of which parts are still missing.
    const waiting: T[] = [];
    let runs = 0;
    for (const [i, part] of all.entries()) {
      const isLast = i === all.length - 1;
      const window = windowOf(part, whole, this.#config);
      let at = 0;
      for await (const decoded of this.#decodePart(decoders, latents, whole, window, signal)) {
        runs += 1;
        const done = Math.floor(runs / all.length);
        if (all.length === 1) {
          yield { frames: decoded.map((values) => form.fromWhole(values, size)), done };
          continue;
        }
        if (i === 0) waiting.push(...decoded.map(() => form.blank(size)));
        const frames = isLast ? waiting.splice(0, decoded.length) : waiting.slice(at, at + decoded.length);
        for (const [k, frame] of frames.entries())
          form.paste(frame, size, decoded[k] as Float32Array, window.frame, scaled(part, this.#scale));
        at += decoded.length;
        yield { frames: isLast ? frames : [], done };
      }
    }
  }

  /** One part of each frame, chunk by chunk, with its margins. */
  async *#decodePart(
    decoders: Chunks,
    latents: Float32Array,
    whole: VideoSize,
    window: Window,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<readonly Float32Array[]> {
    const carried = new CarriedTensors();
    const shape = [1, this.#config.z_dim, whole.height, whole.width];
    const kindOf = (at: number): ChunkKind => (at === 0 ? 'first' : 'later');
    const begin = (at: number) => {
      const data = latentFrame(latents, at, whole.frames, this.#config);
      const run = decoders[kindOf(at)].run({ latents: { data, shape }, ...window.feeds }, { carried, signal });
      // It may fail while nobody waits for it yet.
      run.catch(() => undefined);
      return run;
    };
    let running = begin(0);
    try {
      for (let at = 0; at < whole.frames; at += 1) {
        const outputs = await running;
        // The device goes on while the frames are put into place, which takes nearly as long. A cancel that came meanwhile is heard first.
        await setImmediate();
        if (at + 1 < whole.frames) running = begin(at + 1);
        yield Array.from({ length: framesIn(this.#config, kindOf(at)) }, (_, i) =>
          outputOf(outputs, `${FRAME}${i}`, 'the VAE decoder'),
        );
      }
    } finally {
      await running.catch(() => undefined);
      carried.release();
    }
  }

  /** The decoders that are open from load on. */
  get decoders(): Chunks {
    return this.#sessions.decoders;
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
    const carried = new CarriedTensors();
    let kind: ChunkKind = 'first';
    try {
      let chunk: Float32Array[] = [];
      for await (const frame of frames) {
        chunk.push(frame);
        if (chunk.length < framesIn(this.#config, kind)) continue;
        const session = (await this.#sessions.openEncoders())[kind];
        const shape = [1, COLOURS, height, width];
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
    const side = this.#scale;
    return { frames: 1 + (frames - 1) / framesPerLatent(this.#config), height: height / side, width: width / side };
  }

  /** Pixels to a latent, along a side. */
  get #scale(): number {
    return pixelsPerLatent(this.#config);
  }
}

/** Outputs that carry a layer's past stay on the device, for the inputs of the same layer in the next run. */
function carriesPast({ outputs }: Network['graph']): SessionOptions {
  const kept = outputs.filter((output) => output.startsWith(NEXT));
  return { holds: new Map(kept.map((output) => [output, PAST + output.slice(NEXT.length)])) };
}
