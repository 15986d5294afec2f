import type { Backend } from '../../runtime/backend.js';
import { predictionOf } from '../../schedulers/beta-schedulers.js';
import { join32 } from '../../std/concat-float32.js';
import { groupBy } from '../../std/group-by.js';
import { batchLimit } from '../common/batching.js';
import { guide } from '../common/guidance.js';
import { cleanLatents, PreviewClock, previewFromLatents } from '../common/preview.js';
import { imageFromRgb, rgbFromImage } from '../common/rgb-image.js';
import { RunningJobs } from '../common/running-jobs.js';
import type { LoraSource } from '../lora/read-lora.js';
import type { GenerationRequest, ModelInfo, Pipeline, PipelineEvent, PipelineJob, PromptReport } from '../pipeline.js';
import { batches, type Conditioning, Picture } from './image-latents.js';
import { sdxlColours } from './latent-colours.js';
import { loadSdxlNetworks, type SdxlNetworks, type SdxlOptions } from './networks.js';
import type { PromptEmbeds } from './prompt/prompt-encoder.js';

export interface SdxlPipelineOptions extends SdxlOptions {
  /** Pixels of all pictures that are denoised together; a single one may have more. Omitted: three of the native size. */
  readonly batchPixels?: number | undefined;
}

/** Pictures of the native size that are denoised together. */
const DEFAULT_BATCH = 3;

export async function createSdxlPipeline({ batchPixels, ...options }: SdxlPipelineOptions): Promise<SdxlPipeline> {
  const networks = await loadSdxlNetworks(options);
  return new SdxlPipeline(
    networks,
    batchPixels ?? DEFAULT_BATCH * networks.info.nativeWidth * networks.info.nativeHeight,
  );
}

/** Text, or a picture and text, to pictures with SDXL. Between two `run()`s is host arithmetic over kilobytes of latents. */
export class SdxlPipeline implements Pipeline {
  readonly networks: SdxlNetworks;
  readonly #batchPixels: number;

  constructor(networks: SdxlNetworks, batchPixels: number) {
    this.networks = networks;
    this.#batchPixels = batchPixels;
  }

  get backend(): Backend {
    return this.networks.backend;
  }

  get info(): ModelInfo {
    return this.networks.info;
  }

  async *generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined> {
    const running = new RunningJobs(jobs);
    const pictures: Picture[] = [];
    for (const [job, { request }] of jobs.entries()) pictures.push(...(yield* this.#prepare(job, request, running)));
    for (const batch of batches(pictures, (request) => batchLimit(request, this.#batchPixels))) {
      yield* this.denoise(batch, running);
      for (const { job, index, seed, request, latents } of batch) {
        yield* running.look();
        if (!running.isAlive(job)) continue;
        const { width, height } = request;
        const rgb = rgbFromImage(await this.networks.decode(latents, request), request);
        yield running.advance(job, 'decode', 1, request.seeds.length);
        yield { job, kind: 'image', index, seed, width, height, rgb };
        if (running.endsWithPicture(job)) yield { job, kind: 'done' };
      }
    }
  }

  /** Takes pictures of one size and schedule through their steps, with one run of the denoiser for all of them a step. */
  async *denoise(batch: readonly Picture[], running: RunningJobs): AsyncGenerator<PipelineEvent, void, undefined> {
    const [
      {
        start,
        request: { steps },
      },
    ] = batch as [Picture, ...Picture[]];
    const clocks = new Map(batch.map(({ job, request }) => [job, new PreviewClock(request.previewsPerSecond ?? 0)]));
    for (let i = start; i < steps; i += 1) {
      yield* running.look();
      const alive = running.alive(batch);
      if (alive.length === 0) return;
      const outputs = await this.#predict(alive, i);
      for (const [job, pictures] of groupBy(alive, (picture) => picture.job)) {
        const [picture] = pictures as [Picture, ...Picture[]];
        const { request, index } = picture;
        const isDue = i < steps - 1 && clocks.get(job)?.isDue(performance.now());
        const clean = isDue ? this.#cleanLatents(picture, outputs.get(picture), i) : undefined;
        for (const each of pictures) each.step(i, outputs.get(each) ?? each.latents);
        yield running.advance(job, 'denoise', pictures.length, (steps - start) * request.seeds.length);
        if (clean === undefined) continue;
        yield {
          job,
          kind: 'preview',
          index,
          ...previewFromLatents(clean, this.networks.latentSize(request), sdxlColours),
        };
      }
    }
  }

  /** What the UNet is told of a request's text; undefined when the job ended meanwhile. */
  async *condition(
    job: number,
    request: GenerationRequest,
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, Conditioning | undefined, undefined> {
    const { negativePrompt, guidanceScale, promptSyntax: syntax = 'diffusers' } = request;
    const { config, prompts: encoder } = this.networks;
    const guided = guidanceScale > 1;
    const zeroNegative = negativePrompt === undefined && config.forceZerosForEmptyPrompt;
    const prompt = withWeights(request);
    const texts = guided && !zeroNegative ? [negativePrompt ?? '', prompt] : [prompt];
    const unseen = new Set(texts.filter((text) => !encoder.isCached(text, syntax)));
    const total = unseen.size;
    const encoded: PromptEmbeds[] = [];
    for (const text of texts) {
      yield* running.look();
      if (!running.isAlive(job)) return undefined;
      encoded.push(await encoder.encode(text, syntax));
      if (unseen.delete(text)) yield running.advance(job, 'encode', 1, total);
    }
    const positive = await this.#withoutBadWeights(request, encoded.pop());
    const [negative] = encoded;
    yield { job, kind: 'prompt', report: reportOf(positive, negative) };
    const rows = [...(zeroNegative && guided ? [encoder.zeros(positive.tokens)] : encoded), positive];
    return { rows: await encoder.padToSameLength(rows) };
  }

  /** @param noise unscaled; omitted, drawn from the seed */
  picture(
    job: number,
    request: GenerationRequest,
    index: number,
    conditioning: Conditioning,
    { initLatents, noise }: { readonly initLatents?: Float32Array | undefined; readonly noise?: Float32Array } = {},
  ): Picture {
    const { config } = this.networks;
    const { width, height } = this.networks.latentSize(request);
    const size = config.unet.in_channels * width * height;
    const schedulerConfig = config.scheduler;
    return new Picture({ job, request, index, conditioning, schedulerConfig, size, initLatents, noise });
  }

  get variantBytes(): number {
    return this.networks.variantBytes;
  }

  /** The same model with LoRAs folded in; it goes before its base does. */
  async withLoras(loras: readonly LoraSource[]): Promise<SdxlPipeline> {
    return new SdxlPipeline(await this.networks.withLoras(loras), this.#batchPixels);
  }

  dispose(): Promise<void> {
    return this.networks.release();
  }

  /** Weights that cannot be read are left out: the prompt alone conditions the picture. */
  async #withoutBadWeights(
    { prompt, weights }: GenerationRequest,
    encoded: PromptEmbeds | undefined,
  ): Promise<PromptEmbeds> {
    if (encoded === undefined) throw new Error('a request without a prompt');
    const { problem } = encoded.report;
    if (problem === undefined || !weights) return encoded;
    const plain = await this.networks.prompts.encode(prompt, 'plain');
    return { ...plain, report: { ...plain.report, strategy: 'fallback', problem } };
  }

  async *#prepare(
    job: number,
    request: GenerationRequest,
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, readonly Picture[], undefined> {
    const conditioning = yield* this.condition(job, request, running);
    yield* running.look();
    if (conditioning === undefined || !running.isAlive(job)) return [];
    const { init } = request;
    const initLatents = init && (await this.networks.encodeLatents(imageFromRgb(init.rgb, request), request));
    return request.seeds.map((_, index) => this.picture(job, request, index, conditioning, { initLatents }));
  }

  // The guided output of every picture. Pictures whose text has another number of tokens go into a run of their own.
  async #predict(pictures: readonly Picture[], i: number): Promise<ReadonlyMap<Picture, Float32Array>> {
    const outputs = new Map<Picture, Float32Array>();
    for (const group of groupBy(pictures, ({ conditioning }) => conditioning.rows[0]?.tokens).values()) {
      const [first] = group as [Picture, ...Picture[]];
      const rows = group.flatMap((picture) => picture.conditioning.rows.map((row) => ({ picture, row })));
      const output = await this.networks.predictNoise({
        ...this.networks.latentSize(first.request),
        latents: join32(rows.map(({ picture }) => picture.modelInput(i))),
        timestep: first.timestep(i),
        context: join32(rows.map(({ row }) => row.embeds)),
        pooled: join32(rows.map(({ row }) => row.pooled)),
        timeIds: rows.map(({ picture }) => sizeIds(picture.request)),
      });
      let offset = 0;
      for (const picture of group) {
        const end = offset + (output.length / rows.length) * picture.conditioning.rows.length;
        const own = output.subarray(offset, end);
        outputs.set(picture, picture.conditioning.rows.length === 1 ? own : guide(own, picture.request.guidanceScale));
        offset = end;
      }
    }
    return outputs;
  }

  #cleanLatents(picture: Picture, output: Float32Array | undefined, i: number): Float32Array {
    const prediction = predictionOf(this.networks.config.scheduler);
    return cleanLatents(picture.modelInput(i), output ?? picture.latents, picture.sigma(i), prediction);
  }
}

/** The prompt with its weighted phrases behind it. */
function withWeights({ prompt, weights }: GenerationRequest): string {
  return [prompt, weights].filter(Boolean).join(', ');
}

/** Of the prompt; what is wrong with the weights of the negative one is told too. */
function reportOf({ report }: PromptEmbeds, negative: PromptEmbeds | undefined): PromptReport {
  const problem = negative?.report.problem;
  if (problem === undefined || report.problem !== undefined) return report;
  return { ...report, strategy: 'fallback', problem: `negative prompt: ${problem}` };
}

/** Original size, top left of the crop, target size: height before width. */
function sizeIds({ width, height }: GenerationRequest): readonly number[] {
  return [height, width, 0, 0, height, width];
}
