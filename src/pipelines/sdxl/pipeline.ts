import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isFusedAttentionRight } from '../../graph/attention-probe.js';
import { dialectFor } from '../../graph/dialect.js';
import { createSession, type NetworkSession } from '../../graph/session.js';
import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import { createScheduler } from '../../schedulers/index.js';
import { readClipTokenizer } from '../../tokenizer/clip.js';
import type { Device, ImageRequest, ModelInfo, Pipeline, PipelineEvent } from '../pipeline.js';
import { readSdxlConfig, type SdxlConfig } from './config.js';
import { describeSdxl, vaeScale } from './inspect.js';
import { type PromptEmbeds, PromptEncoder } from './prompt-encoder.js';
import { rgbFromImage } from './rgb.js';
import { timestepEmbedding } from './timestep-embedding.js';
import { buildSdxlNetworks, type NetworkName, networkNames } from './weights.js';

export interface SdxlOptions {
  /** A diffusers-layout folder. */
  readonly path: string;
  readonly device: Exclude<Device, 'auto'>;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
}

type Sessions = Readonly<Record<NetworkName, NetworkSession>>;

/** Loads an SDXL checkpoint: sessions are built here, once, for every size and batch. */
export async function createSdxlPipeline({ path, device, threads }: SdxlOptions): Promise<SdxlPipeline> {
  const config = await readSdxlConfig(path);
  const attentionIsRight = device === 'webgpu' && (await isFusedAttentionRight(device));
  const networks = await buildSdxlNetworks(path, config, dialectFor(device, attentionIsRight));
  const tokenizer = await readClipTokenizer(join(path, 'tokenizer'));
  const tokenizer2 = await readClipTokenizer(join(path, 'tokenizer_2'));
  const sessions: Partial<Record<NetworkName, NetworkSession>> = {};
  for (const name of networkNames) sessions[name] = await createSession(networks[name].graph, { device, threads });
  const encoder = new PromptEncoder(
    { tokenizer, session: sessions.text_encoder as NetworkSession, config: config.textEncoder },
    { tokenizer: tokenizer2, session: sessions.text_encoder_2 as NetworkSession, config: config.textEncoder2 },
  );
  return new SdxlPipeline(config, describeSdxl(config, networks), device, sessions as Sessions, encoder);
}

/** Text to image with SDXL. Everything between `run()`s is host arithmetic over a few kilobytes of latents. */
export class SdxlPipeline implements Pipeline {
  readonly info: ModelInfo;
  readonly device: Exclude<Device, 'auto'>;
  readonly #config: SdxlConfig;
  readonly #sessions: Sessions;
  readonly #encoder: PromptEncoder;

  constructor(
    config: SdxlConfig,
    info: ModelInfo,
    device: Exclude<Device, 'auto'>,
    sessions: Sessions,
    encoder: PromptEncoder,
  ) {
    this.info = info;
    this.device = device;
    this.#config = config;
    this.#sessions = sessions;
    this.#encoder = encoder;
  }

  async *generate(request: ImageRequest, signal: AbortSignal): AsyncGenerator<PipelineEvent, void, undefined> {
    const conditioning = yield* this.#condition(request, signal);
    for (const [index, seed] of request.seeds.entries()) {
      const latents = yield* this.#denoise(request, index, conditioning, signal);
      await pause(signal);
      const rgb = rgbFromImage(await this.decode(latents, request), request);
      yield { kind: 'progress', phase: 'decode', step: index + 1, total: request.seeds.length };
      yield { kind: 'image', index, seed, width: request.width, height: request.height, rgb };
    }
  }

  /** [1, T, X] and [1, P] of one prompt. Run again only for prompts that were not seen lately. */
  encodePrompt(prompt: string): Promise<PromptEmbeds> {
    return this.#encoder.encode(prompt);
  }

  /**
   * Latents of one picture at the end of the loop, [1, 4, height/8, width/8], times the scaling factor.
   * @param initialNoise the unscaled noise; omitted, torch's CPU generator draws it from the seed
   */
  async *denoise(
    request: ImageRequest,
    index: number,
    signal: AbortSignal,
    initialNoise?: Float32Array,
  ): AsyncGenerator<PipelineEvent, Float32Array, undefined> {
    const conditioning = yield* this.#condition(request, signal);
    return yield* this.#denoise(request, index, conditioning, signal, initialNoise);
  }

  /** One call of the UNet over a batch. */
  async predictNoise(call: UNetCall): Promise<Float32Array> {
    const { unet } = this.#config;
    const batch = call.timeIds.length;
    const options = { flipSinToCos: unet.flip_sin_to_cos, freqShift: unet.freq_shift };
    const [channels = 0] = unet.block_out_channels;
    const timestep = timestepEmbedding(call.timestep, channels, options);
    const sizes = call.timeIds.flatMap((ids) =>
      ids.map((id) => timestepEmbedding(id, unet.addition_time_embed_dim, options)),
    );
    const { noise } = await this.#sessions.unet.run({
      latents: { data: call.latents, shape: [batch, unet.in_channels, call.height, call.width] },
      timestep: { data: join32(new Array<Float32Array>(batch).fill(timestep)), shape: [batch, channels] },
      sizes: { data: join32(sizes), shape: [batch, 6 * unet.addition_time_embed_dim] },
      context: { data: call.context, shape: [batch, this.#encoder.tokens, this.#encoder.width] },
      pooled: { data: call.pooled, shape: [batch, this.#encoder.pooledWidth] },
    });
    if (noise === undefined) throw new Error('the UNet has no output');
    return noise;
  }

  /**
   * Latents [1, 4, h, w] to an image, planar float32 [3, 8h, 8w], about -1 to 1.
   * @param size of the image, in pixels
   */
  async decode(latents: Float32Array, { width, height }: { width: number; height: number }): Promise<Float32Array> {
    const { scaling_factor, shift_factor, latents_mean, latents_std, latent_channels } = this.#config.vae;
    const area = latents.length / latent_channels;
    const scaled = latents.map((value, i) => {
      const channel = Math.floor(i / area);
      return (value * (latents_std?.[channel] ?? 1)) / scaling_factor + (latents_mean?.[channel] ?? shift_factor ?? 0);
    });
    const side = vaeScale(this.#config);
    const shape = [1, latent_channels, height / side, width / side];
    const { image } = await this.#sessions.vae.run({ latents: { data: scaled, shape } });
    if (image === undefined) throw new Error('the VAE has no output');
    return image;
  }

  async dispose(): Promise<void> {
    for (const session of Object.values(this.#sessions)) await session.release();
  }

  /** Negative and positive conditioning, as one batch where there is guidance. */
  async *#condition(
    request: ImageRequest,
    signal: AbortSignal,
  ): AsyncGenerator<PipelineEvent, Conditioning, undefined> {
    const { prompt, negativePrompt, guidanceScale } = request;
    const guided = guidanceScale > 1;
    const zeroNegative = negativePrompt === undefined && this.#config.forceZerosForEmptyPrompt;
    const prompts = guided && !zeroNegative ? [negativePrompt ?? '', prompt] : [prompt];
    const unseen = new Set(prompts.filter((text) => !this.#encoder.isCached(text)));
    const encoded: PromptEmbeds[] = guided && zeroNegative ? [this.#encoder.zeros()] : [];
    let step = 0;
    for (const text of prompts) {
      await pause(signal);
      encoded.push(await this.#encoder.encode(text));
      if (unseen.delete(text)) {
        step += 1;
        yield { kind: 'progress', phase: 'encode', step, total: step + unseen.size };
      }
    }
    return {
      batch: encoded.length,
      context: join32(encoded.map(({ embeds }) => embeds)),
      pooled: join32(encoded.map(({ pooled }) => pooled)),
    };
  }

  async *#denoise(
    request: ImageRequest,
    index: number,
    { batch, context, pooled }: Conditioning,
    signal: AbortSignal,
    initialNoise?: Float32Array,
  ): AsyncGenerator<PipelineEvent, Float32Array, undefined> {
    const side = vaeScale(this.#config);
    const [height, width] = [request.height / side, request.width / side];
    const scheduler = createScheduler(request.scheduler, this.#config.scheduler, request.steps);
    const seed = request.seeds[index] ?? 0;
    const generator = new TorchCpuGenerator(seed);
    const noise = initialNoise ?? generator.randn(this.#config.unet.in_channels * height * width);
    // Original size, top left of the crop, target size: height before width.
    const timeIds = new Array<number[]>(batch).fill([
      request.height,
      request.width,
      0,
      0,
      request.height,
      request.width,
    ]);
    // Samplers that add noise go on in the stream that the initial noise began.
    const draw = (size: number) => generator.randn(size);
    let latents: Float32Array = noise.map((value) => value * scheduler.initNoiseSigma);
    for (const [i, timestep] of scheduler.timesteps.entries()) {
      await pause(signal);
      const input = scheduler.scaleModelInput(latents, i);
      const inputs = join32(new Array<Float32Array>(batch).fill(input));
      const output = await this.predictNoise({ latents: inputs, height, width, timestep, context, pooled, timeIds });
      latents = scheduler.step(batch === 1 ? output : guide(output, request.guidanceScale), latents, i, draw);
      const total = request.steps * request.seeds.length;
      yield { kind: 'progress', phase: 'denoise', step: index * request.steps + i + 1, total };
    }
    return latents;
  }
}

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
}

interface Conditioning {
  readonly batch: number;
  readonly context: Float32Array;
  readonly pooled: Float32Array;
}

/** Classifier-free guidance: [2, ...], unconditional first -> [...]. */
function guide(output: Float32Array, guidanceScale: number): Float32Array {
  const half = output.length / 2;
  return Float32Array.from({ length: half }, (_, i) => {
    const unconditional = output[i] ?? 0;
    return unconditional + guidanceScale * Math.fround((output[half + i] ?? 0) - unconditional);
  });
}

/** Lets messages in (a run blocks the thread, a cancel waits outside), then ends the job if it was told to. */
async function pause(signal: AbortSignal): Promise<void> {
  await nextTurn();
  signal.throwIfAborted();
}

function join32(parts: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}
