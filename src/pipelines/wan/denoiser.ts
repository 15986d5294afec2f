import { type Feed, type NetworkSession, outputOf } from '../../runtime/session.js';
import { join32, split32 } from '../../std/concat-float32.js';
import { LruMap } from '../../std/lru-map.js';
import { weightedSum } from '../../std/weighted-sum.js';
import type { OnDemandSession, SessionGroup } from '../common/session-group.js';
import { timestepEmbedding } from '../common/timestep-embedding.js';
import { type Condition, conditionFeeds, withChannels } from './conditioning/condition-feeds.js';
import type { TransformerConfig } from './model/config.js';
import type { VideoSize } from './model/latents.js';
import { withFrameBefore, withoutFrameBefore } from './model/reference-frame.js';
import { type Grid, type RotaryTables, rotaryTables } from './model/rotary-tables.js';
import { PATCH, TEXT_POSITIONS } from './model/transformer.js';
import { hasFrameTimesteps } from './model/variant.js';
import type { WanGraphs } from './weights.js';

export interface TransformerCall {
  /** [B, 16, frames, height, width] */
  readonly latents: Float32Array;
  /** In latents; height and width even. */
  readonly size: VideoSize;
  readonly timestep: number;
  /** B texts, [T, C] each, of up to 512 positions. */
  readonly texts: readonly Float32Array[];
  /** The transformer's blocks that are skipped with each text, from 0. Omitted: none. */
  readonly skips?: readonly (readonly number[])[] | undefined;
  /** The input beside text, the same for all of the batch. Omitted: text alone. */
  readonly condition?: Condition | undefined;
  /** Runs the texts one after the other: it takes less memory. Omitted: together. */
  readonly oneByOne?: boolean | undefined;
  /** Ends the run. Omitted: nothing does. */
  readonly signal?: AbortSignal | undefined;
}

/** A whole run of the transformer, which later steps may build on without running its blocks. */
export interface KeptRun {
  readonly latents: Float32Array;
  /** [B, patches, D]: the output of the blocks. */
  readonly hidden: Float32Array;
}

/** Sessions of the two small graphs are opened by the first request that saves steps. */
interface Sessions {
  readonly whole: NetworkSession;
  readonly openReusing: OnDemandSession;
  readonly openTime: OnDemandSession;
}

/** The transformer, loaded. */
export class Denoiser {
  readonly #sessions: Sessions;
  readonly #config: TransformerConfig;
  /** All steps of a job have the same grid. */
  readonly #tables = new LruMap<string, RotaryTables>(1);

  private constructor(sessions: Sessions, config: TransformerConfig) {
    this.#sessions = sessions;
    this.#config = config;
  }

  static async open(
    { transformer, transformer_reusing, transformer_time }: WanGraphs,
    sessions: SessionGroup,
    config: TransformerConfig,
  ): Promise<Denoiser> {
    const openReusing = sessions.onDemand(transformer_reusing);
    const openTime = sessions.onDemand(transformer_time);
    return new Denoiser({ whole: await sessions.open(transformer), openReusing, openTime }, config);
  }

  /** One run of the transformer over a batch: the velocity from latents to noise. -> [B, 16, frames, height, width] */
  async predict(call: TransformerCall): Promise<Float32Array> {
    return outputOf(await this.#run(call, ['flow']), 'flow', 'the transformer');
  }

  /** The same velocity, and what `predictFrom` needs to leave out the blocks in a later step. */
  async predictAndKeep(call: TransformerCall): Promise<{ readonly flow: Float32Array; readonly kept: KeptRun }> {
    const outputs = await this.#run(call, ['flow', 'hidden']);
    const kept = { latents: call.latents, hidden: outputOf(outputs, 'hidden', 'the transformer') };
    return { flow: outputOf(outputs, 'flow', 'the transformer'), kept };
  }

  /** The velocity with what the blocks added in the kept run, which had the same batch. -> [B, 16, frames, height, width] */
  async predictFrom(
    { latents: before, hidden }: KeptRun,
    { latents, size: own, timestep, condition, signal }: Omit<TransformerCall, 'texts'>,
  ): Promise<Float32Array> {
    const takesReference = this.#config.add_ref_conv;
    const size = takesReference ? { ...own, frames: own.frames + 1 } : own;
    const { in_channels: channels } = this.#config;
    const latentChannels = this.#config.out_channels ?? channels;
    const area = size.frames * size.height * size.width;
    const ownChange = weightedSum(1, latents, -1, before);
    const change = takesReference ? withFrameBefore(ownChange, own) : ownChange;
    const batch = change.length / (latentChannels * area);
    // The channels of known frames do not change.
    const unchanged = new Float32Array((channels - latentChannels) * area);
    const shape = [batch, channels, size.frames, size.height, size.width];
    const session = await this.#sessions.openReusing();
    const feeds = {
      hidden: { data: hidden, shape: [batch, area / PATCH ** 2, this.#width] },
      change: { data: withChannels(change, batch, unchanged), shape },
      timestep: this.#timestepsOf(batch, { size, timestep, condition }),
    };
    const outputs = await session.run(feeds, { signal });
    const flow = outputOf(outputs, 'flow', 'the reusing transformer');
    return takesReference ? withoutFrameBefore(flow, size) : flow;
  }

  /** The embedding of each timestep, before it is projected for the blocks. */
  async timeEmbeddings(timesteps: readonly number[]): Promise<readonly Float32Array[]> {
    const session = await this.#sessions.openTime();
    const outputs = await session.run({ timestep: this.#timesteps(timesteps) });
    return split32(outputOf(outputs, 'time', 'the time embedder'), this.#width);
  }

  async #run(call: TransformerCall, outputs: readonly string[]): Promise<Readonly<Record<string, Float32Array>>> {
    if (!call.oneByOne) return this.#runTogether(call, outputs);
    const rows = split32(call.latents, call.latents.length / call.texts.length);
    const results: Readonly<Record<string, Float32Array>>[] = [];
    for (const [i, latents] of rows.entries()) results.push(await this.#runTogether(rowOf(call, i, latents), outputs));
    return Object.fromEntries(
      outputs.map((name) => [name, join32(results.map((result) => outputOf(result, name, 'the transformer')))]),
    );
  }

  async #runTogether(
    call: TransformerCall,
    outputs: readonly string[],
  ): Promise<Readonly<Record<string, Float32Array>>> {
    if (!this.#config.add_ref_conv) return this.#runFrames(call, outputs);
    const withReference = withReferenceFrame(call);
    const results = await this.#runFrames(withReference, outputs);
    return { ...results, flow: withoutFrameBefore(outputOf(results, 'flow', 'the transformer'), withReference.size) };
  }

  /** A run over the frames that the graph takes. */
  async #runFrames(
    { latents, size, timestep, texts, skips, condition, signal }: TransformerCall,
    outputs: readonly string[],
  ): Promise<Readonly<Record<string, Float32Array>>> {
    const {
      in_channels: channels,
      attention_head_dim: headDim,
      text_dim: textWidth,
      num_layers: blocks,
    } = this.#config;
    const batch = texts.length;
    const shape = [size.frames, size.height, size.width];
    const grid = { frames: size.frames, height: size.height / PATCH, width: size.width / PATCH };
    const { cos, sin } = this.#rotaryTables(grid);
    const tables = [grid.frames * grid.height * grid.width, headDim / 2];
    const feeds = {
      latents: {
        data: withChannels(latents, batch, condition?.kind === 'image' ? condition.channels : undefined),
        shape: [batch, channels, ...shape],
      },
      timestep: this.#timestepsOf(batch, { size, timestep, condition }),
      text: { data: paddedTexts(texts, textWidth), shape: [batch, TEXT_POSITIONS, textWidth] },
      active_blocks: { data: activeBlocks(batch, blocks, skips), shape: [blocks, batch] },
      cos: { data: cos, shape: tables },
      sin: { data: sin, shape: tables },
      ...conditionFeeds(condition, batch, shape, this.#config),
    };
    return this.#sessions.whole.run(feeds, { outputs, signal });
  }

  /** D */
  get #width(): number {
    return this.#config.attention_head_dim * this.#config.num_attention_heads;
  }

  /** One timestep of each video, or of each of its frames; that of clean ones is 0. */
  #timestepsOf(
    batch: number,
    { size, timestep, condition }: Pick<TransformerCall, 'size' | 'timestep' | 'condition'>,
  ): Feed {
    if (!hasFrameTimesteps(this.#config)) return this.#timesteps(new Array<number>(batch).fill(timestep));
    const clean = condition?.kind === 'clean' ? condition.count : 0;
    const frames = Array.from({ length: size.frames }, (_, frame) => (frame < clean ? 0 : timestep));
    const { data, shape } = this.#timesteps(new Array(batch).fill(frames).flat());
    return { data, shape: [batch, size.frames, ...shape.slice(1)] };
  }

  #timesteps(timesteps: readonly number[]): Feed {
    const { freq_dim: frequencies } = this.#config;
    const options = { flipSinToCos: true, freqShift: 0 };
    const data = join32(timesteps.map((timestep) => timestepEmbedding(timestep, frequencies, options)));
    return { data, shape: [timesteps.length, frequencies] };
  }

  #rotaryTables(grid: Grid): RotaryTables {
    const key = `${grid.frames} ${grid.height} ${grid.width}`;
    const tables = this.#tables.get(key) ?? rotaryTables(this.#config.attention_head_dim, grid);
    this.#tables.set(key, tables);
    return tables;
  }
}

function rowOf(call: TransformerCall, row: number, latents: Float32Array): TransformerCall {
  const { texts, skips } = call;
  return { ...call, latents, texts: texts.slice(row, row + 1), skips: skips?.slice(row, row + 1) };
}

// -> [blocks, B]: 0 where a block is skipped, otherwise 1
function activeBlocks(batch: number, blocks: number, skips: TransformerCall['skips'] = []): Float32Array {
  return Float32Array.from({ length: batch * blocks }, (_, i) =>
    skips[i % batch]?.includes(Math.floor(i / batch)) ? 0 : 1,
  );
}

/** A call with a frame before the video's own, in which the reference image is. */
function withReferenceFrame(call: TransformerCall): TransformerCall {
  const { latents, size, condition } = call;
  return {
    ...call,
    latents: withFrameBefore(latents, size),
    size: { ...size, frames: size.frames + 1 },
    condition:
      condition?.kind === 'image' ? { ...condition, channels: withFrameBefore(condition.channels, size) } : condition,
  };
}

// B texts [T, C], of different lengths -> [B, 512, C]
function paddedTexts(texts: readonly Float32Array[], width: number): Float32Array {
  const padded = new Float32Array(texts.length * TEXT_POSITIONS * width);
  for (const [i, states] of texts.entries()) {
    if (states.length > TEXT_POSITIONS * width) {
      throw new Error(`a text of ${states.length / width} positions, the model takes ${TEXT_POSITIONS}`);
    }
    padded.set(states, i * TEXT_POSITIONS * width);
  }
  return padded;
}
