import type { Backend } from '../../runtime/backend.js';
import { createSession, type Feed, Held, type NetworkSession, outputOf } from '../../runtime/session.js';
import { join32 } from '../../std/concat-float32.js';
import { timestepEmbedding } from '../common/timestep-embedding.js';
import { type LoraSource, loraUpdates, readLora } from '../lora/read-lora.js';
import type { ModelInfo } from '../pipeline.js';
import { openWanCheckpoint, type WanSource } from './checkpoint/checkpoint.js';
import { type Condition, conditionFeeds, withChannels } from './conditioning/condition-feeds.js';
import { buildImageEncoder, type ImageEncoder, loadImageEncoder } from './conditioning/image-encoder.js';
import { describeWan } from './inspect.js';
import { wanLoraNames } from './lora-names.js';
import type { WanConfig } from './model/config.js';
import { clipOfFrames, latentFrame, normalizedLatents } from './model/latents.js';
import { type Grid, type RotaryTables, rotaryTables } from './model/rotary-tables.js';
import { type ChunkKind, framesPerLatent, NEXT, PAST } from './model/vae.js';
import { Prompts } from './prompt/prompt-cache.js';
import { buildPromptEncoder, loadPromptEncoder } from './prompt/prompt-encoder.js';
import { buildWanNetworks, type NetworkName, type Networks } from './weights.js';

/** Texts are filled up with zeros to this many positions, all of which the model attends to: text_len of the original code. */
const TEXT_POSITIONS = 512;
/** Latents to a patch, along a side. */
const PATCH = 2;

export interface WanOptions extends WanSource {
  readonly backend: Backend;
}

/** Of one clip, in pixels, or in latents where it says so. */
export interface ClipSize {
  readonly frames: number;
  readonly height: number;
  readonly width: number;
}

export interface TransformerCall {
  /** [B, 16, frames, height, width] */
  readonly latents: Float32Array;
  /** In latents; height and width even. */
  readonly size: ClipSize;
  readonly timestep: number;
  /** B texts, [T, C] each, of up to 512 positions. */
  readonly texts: readonly Float32Array[];
  /** What the model takes beside text, the same for all of the batch. Omitted: it is one of text alone. */
  readonly condition?: Condition | undefined;
}

/** A whole run of the transformer, from which later steps may go on without its blocks. */
export interface KeptRun {
  readonly latents: Float32Array;
  /** [B, patches, D]: what came out of the blocks. */
  readonly hidden: Float32Array;
}

/** Many servers never see a reference or a request that saves steps: these are opened when one comes. */
type LateName = Exclude<NetworkName, 'transformer' | 'vae_decoder_first' | 'vae_decoder_later'>;

interface Sessions {
  readonly transformer: NetworkSession;
  readonly decoder: Readonly<Record<ChunkKind, NetworkSession>>;
  open(name: LateName): Promise<NetworkSession>;
  /** Of a model that looks at pictures. */
  readonly openImageEncoder: (() => Promise<ImageEncoder>) | undefined;
}

/** Opens the sessions that a variant with LoRAs has of its own. */
type OpenVariant = (loras: readonly LoraSource[]) => Promise<Pick<Sessions, 'transformer' | 'open'>>;

/** The networks of one checkpoint, loaded: tensors in, tensors out. */
export class WanNetworks {
  readonly config: WanConfig;
  readonly info: ModelInfo;
  readonly backend: Backend;
  readonly prompts: Prompts;
  readonly #sessions: Sessions;
  readonly #openVariant: OpenVariant;
  /** What a variant holds, in float32: a transformer. */
  readonly variantBytes: number;
  /** Of a variant: what it does not change is its base's. */
  readonly #base: WanNetworks | undefined;
  readonly #opened = new Map<LateName, Promise<NetworkSession>>();
  #turn: { readonly key: string; readonly tables: RotaryTables } | undefined;

  constructor(
    {
      config,
      info,
      backend,
      prompts,
      variantBytes,
    }: Pick<WanNetworks, 'config' | 'info' | 'backend' | 'prompts' | 'variantBytes'>,
    sessions: Sessions,
    openVariant: OpenVariant,
    base?: WanNetworks,
  ) {
    this.config = config;
    this.info = info;
    this.backend = backend;
    this.prompts = prompts;
    this.#sessions = sessions;
    this.#openVariant = openVariant;
    this.variantBytes = variantBytes;
    this.#base = base;
  }

  /**
   * The same model with LoRAs folded into the weights of its transformer; the rest is shared, and goes with the base.
   * @throws InferenceError of a LoRA that cannot be read or does not fit
   */
  async withLoras(loras: readonly LoraSource[]): Promise<WanNetworks> {
    const own = await this.#openVariant(loras);
    return new WanNetworks(this, { ...this.#sessions, ...own }, this.#openVariant, this);
  }

  /** One run of the transformer over a batch: the velocity from latents to noise. -> [B, 16, frames, height, width] */
  async predict(call: TransformerCall): Promise<Float32Array> {
    return outputOf(await this.#runTransformer(call, ['flow']), 'flow', 'the transformer');
  }

  /** The same, and what `predictFrom` needs to leave out the blocks in a later step. */
  async predictAndKeep(call: TransformerCall): Promise<{ readonly flow: Float32Array; readonly kept: KeptRun }> {
    const outputs = await this.#runTransformer(call, ['flow', 'hidden']);
    const kept = { latents: call.latents, hidden: outputOf(outputs, 'hidden', 'the transformer') };
    return { flow: outputOf(outputs, 'flow', 'the transformer'), kept };
  }

  /** The velocity with what the blocks added in the kept run, whose batch this is. -> [B, 16, frames, height, width] */
  async predictFrom(
    { latents: before, hidden }: KeptRun,
    { latents, size, timestep }: Omit<TransformerCall, 'texts'>,
  ): Promise<Float32Array> {
    const { in_channels: channels, attention_head_dim, num_attention_heads } = this.config.transformer;
    const plane = size.frames * size.height * size.width;
    const own = this.config.vae.z_dim;
    const batch = latents.length / (own * plane);
    // What is known of the clip does not change.
    const rest = new Float32Array((channels - own) * plane);
    const change = latents.map((x, i) => x - (before[i] ?? 0));
    const patches = (size.frames * size.height * size.width) / PATCH ** 2;
    const session = await this.#late('transformer_reusing');
    const outputs = await session.run({
      hidden: { data: hidden, shape: [batch, patches, attention_head_dim * num_attention_heads] },
      change: {
        data: withChannels(change, batch, rest),
        shape: [batch, channels, size.frames, size.height, size.width],
      },
      timestep: this.#timesteps(new Array<number>(batch).fill(timestep)),
    });
    return outputOf(outputs, 'flow', 'the reusing transformer');
  }

  /** What the blocks are told of each timestep, before it is projected for them. */
  async timeEmbeddings(timesteps: readonly number[]): Promise<readonly Float32Array[]> {
    const session = await this.#late('transformer_time');
    const time = outputOf(await session.run({ timestep: this.#timesteps(timesteps) }), 'time', 'the time embedder');
    const { attention_head_dim, num_attention_heads } = this.config.transformer;
    return split(time, attention_head_dim * num_attention_heads);
  }

  async #runTransformer(
    { latents, size, timestep, texts, condition }: TransformerCall,
    outputs: readonly string[],
  ): Promise<Readonly<Record<string, Float32Array>>> {
    const { in_channels: channels, text_dim: width } = this.config.transformer;
    const batch = texts.length;
    const grid = { frames: size.frames, height: size.height / PATCH, width: size.width / PATCH };
    const { cos, sin } = this.#rotaryTables(grid);
    const tables = [grid.frames * grid.height * grid.width, this.config.transformer.attention_head_dim / 2];
    const text = new Float32Array(batch * TEXT_POSITIONS * width);
    for (const [i, states] of texts.entries()) {
      if (states.length > TEXT_POSITIONS * width) {
        throw new Error(`a text of ${states.length / width} positions, the model takes ${TEXT_POSITIONS}`);
      }
      text.set(states, i * TEXT_POSITIONS * width);
    }
    const feeds = {
      latents: {
        data: withChannels(latents, batch, condition?.kind === 'image' ? condition.channels : undefined),
        shape: [batch, channels, size.frames, size.height, size.width],
      },
      timestep: this.#timesteps(new Array<number>(batch).fill(timestep)),
      text: { data: text, shape: [batch, TEXT_POSITIONS, width] },
      cos: { data: cos, shape: tables },
      sin: { data: sin, shape: tables },
      ...conditionFeeds(condition, batch, [size.frames, size.height, size.width], this.config.transformer),
    };
    return this.#sessions.transformer.run(feeds, undefined, outputs);
  }

  #timesteps(timesteps: readonly number[]): Feed {
    const { freq_dim: frequencies } = this.config.transformer;
    const options = { flipSinToCos: true, freqShift: 0 };
    const data = join32(timesteps.map((timestep) => timestepEmbedding(timestep, frequencies, options)));
    return { data, shape: [timesteps.length, frequencies] };
  }

  /**
   * Latents [16, F, h, w] to the 1 + 4(F - 1) frames of the clip: first one alone, then four at a time, each planar float32
   * [3, 8h, 8w], -1 to 1. What is held does not grow with the clip.
   *
   * @param size of the clip in pixels
   * @param perRun latents of one run after the first, each of which holds as much again
   */
  async *decodeChunks(latents: Float32Array, size: ClipSize, perRun = 1): AsyncGenerator<readonly Float32Array[]> {
    const { vae } = this.config;
    const { frames, height, width } = this.latentSize(size);
    const held = new Held();
    try {
      for (let at = 0; at < frames; at += at === 0 ? 1 : perRun) {
        const count = at === 0 ? 1 : Math.min(perRun, frames - at);
        const data = join32(Array.from({ length: count }, (_, i) => latentFrame(latents, at + i, frames, vae)));
        const session = this.#sessions.decoder[at === 0 ? 'first' : 'later'];
        const feeds = { latents: { data, shape: [count, vae.z_dim, height, width] } };
        const decoded = outputOf(await session.run(feeds, held), 'frames', 'the VAE decoder');
        yield split(decoded, 3 * size.height * size.width);
      }
    } finally {
      held.release();
    }
  }

  /**
   * The frames of a clip, 1 + 4k of them, each planar float32 [3, height, width] of -1 to 1, to the means of their latents, as
   * the VAE gives them, [16, 1 + k, h, w]. Frames are taken four at a time as they come.
   *
   * @param size of a frame in pixels
   */
  async encode(
    frames: Iterable<Float32Array> | AsyncIterable<Float32Array>,
    size: Omit<ClipSize, 'frames'>,
  ): Promise<Float32Array> {
    const means: Float32Array[] = [];
    for await (const mean of this.encodeChunks(frames, size)) means.push(mean);
    return clipOfFrames(means, this.config.vae.z_dim);
  }

  /** The same a latent at a time, [16, h, w] each, for who looks about between the runs. */
  async *encodeChunks(
    frames: Iterable<Float32Array> | AsyncIterable<Float32Array>,
    { height, width }: Omit<ClipSize, 'frames'>,
  ): AsyncGenerator<Float32Array> {
    const { in_channels: colours } = this.config.vae;
    const held = new Held();
    let isFirst = true;
    try {
      let chunk: Float32Array[] = [];
      for await (const frame of frames) {
        chunk.push(frame);
        if (chunk.length < (isFirst ? 1 : framesPerLatent(this.config.vae))) continue;
        const session = await this.#late(isFirst ? 'vae_encoder_first' : 'vae_encoder_later');
        const feeds = { frames: { data: join32(chunk), shape: [chunk.length, colours, height, width] } };
        const moments = outputOf(await session.run(feeds, held), 'moments', 'the VAE encoder');
        // The logarithm of the variance is the other half: the mode is what a clip is held by.
        yield moments.slice(0, moments.length / 2);
        [chunk, isFirst] = [[], false];
      }
      if (chunk.length > 0 || isFirst) {
        throw new Error(`${chunk.length} frames are left over: a clip has one and a multiple of four`);
      }
    } finally {
      held.release();
    }
  }

  /** The same, as the transformer takes them. */
  async encodeLatents(
    frames: Iterable<Float32Array> | AsyncIterable<Float32Array>,
    size: Omit<ClipSize, 'frames'>,
  ): Promise<Float32Array> {
    return normalizedLatents(await this.encode(frames, size), this.config.vae);
  }

  /**
   * What the image encoder says of pictures, [I, image_dim], one behind the other. It is loaded for them and given back: a job
   * needs it once.
   *
   * @returns undefined for a model that looks at none
   */
  async encodePictures(
    pictures: readonly Uint8Array[],
    size: Omit<ClipSize, 'frames'>,
  ): Promise<Float32Array | undefined> {
    const encoder = await this.#sessions.openImageEncoder?.();
    if (encoder === undefined) return undefined;
    try {
      const states: Float32Array[] = [];
      for (const rgb of pictures) states.push(await encoder.encode(rgb, size));
      return join32(states);
    } finally {
      await encoder.release();
    }
  }

  /** Of a clip in pixels, in latents. */
  latentSize({ frames, height, width }: ClipSize): ClipSize {
    const side = 2 ** (this.config.vae.dim_mult.length - 1);
    return {
      frames: 1 + (frames - 1) / framesPerLatent(this.config.vae),
      height: height / side,
      width: width / side,
    };
  }

  async release(): Promise<void> {
    const { transformer, decoder } = this.#sessions;
    const late = await Promise.all(this.#opened.values());
    const shared = this.#base === undefined ? [this.prompts, decoder.first, decoder.later] : [];
    for (const session of [transformer, ...late, ...shared]) await session.release();
  }

  #late(name: LateName): Promise<NetworkSession> {
    if (this.#base !== undefined && !name.startsWith('transformer')) return this.#base.#late(name);
    const opened = this.#opened.get(name) ?? this.#sessions.open(name);
    this.#opened.set(name, opened);
    return opened;
  }

  /** Steps of one job have the same grid. */
  #rotaryTables(grid: Grid): RotaryTables {
    const key = `${grid.frames} ${grid.height} ${grid.width}`;
    if (this.#turn?.key !== key) {
      this.#turn = { key, tables: rotaryTables(this.config.transformer.attention_head_dim, grid) };
    }
    return this.#turn.tables;
  }
}

/**
 * Loads the transformer and the VAE of a checkpoint: sessions are built here, once, for every size and batch. The text encoder is
 * checked here and loaded with the first prompt, the image encoder with the first picture.
 */
export async function loadWanNetworks({ backend, ...source }: WanOptions): Promise<WanNetworks> {
  const checkpoint = await openWanCheckpoint(source);
  const { dialect } = backend;
  const networks = await buildWanNetworks(checkpoint, dialect);
  const textEncoder = await buildPromptEncoder(checkpoint, dialect);
  const imageEncoder = await buildImageEncoder(checkpoint, dialect);
  const { config } = checkpoint;
  const prompts = new Prompts(() => loadPromptEncoder(checkpoint, backend), source.keepsTextEncoder ?? false);
  const opener = (of: Networks) => (name: NetworkName) => {
    const { graph } = of[name];
    const kept = graph.outputs.filter((output) => output.startsWith(NEXT));
    const holds = new Map(kept.map((output) => [output, PAST + output.slice(NEXT.length)]));
    return createSession(graph, backend, { holds });
  };
  const openVariant: OpenVariant = async (loras) => {
    const names = wanLoraNames(config);
    const files = await Promise.all(loras.map(async (lora) => ({ ...lora, file: await readLora(lora.path, names) })));
    const updates = loraUpdates(files, 'transformer', false);
    const open = opener(await buildWanNetworks(checkpoint, dialect, updates));
    return { transformer: await open('transformer'), open };
  };
  const info = describeWan(checkpoint, networks, { textEncoder, imageEncoder });
  const open = opener(networks);
  const sessions = {
    transformer: await open('transformer'),
    decoder: { first: await open('vae_decoder_first'), later: await open('vae_decoder_later') },
    open,
    openImageEncoder: imageEncoder && (() => loadImageEncoder(checkpoint, backend)),
  };
  // Weights are computed with in float32, whatever they are stored as.
  const variantBytes = 4 * networks.transformer.weights.parameters;
  return new WanNetworks({ config, info, backend, prompts, variantBytes }, sessions, openVariant);
}

function split(values: Float32Array, length: number): readonly Float32Array[] {
  return Array.from({ length: values.length / length }, (_, i) => values.subarray(i * length, (i + 1) * length));
}
