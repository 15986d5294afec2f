import { randomInt } from 'node:crypto';
import { type DarkroomClient, generate } from '../../client/client.js';
import { InferenceError } from '../../errors.js';
import type { Preview } from '../../gen/darkroom/v1/event.js';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import {
  type Asset,
  AssetRole,
  type JobMetadata,
  type Mask,
  OutputFormat,
  type Reference,
} from '../../gen/darkroom/v1/job.js';
import { type ImageModel, splitImages } from './image-models.js';
import type { ImagesRequest } from './images-request.js';

const FORMATS = {
  png: OutputFormat.OUTPUT_FORMAT_PNG,
  jpeg: OutputFormat.OUTPUT_FORMAT_JPEG,
  webp: OutputFormat.OUTPUT_FORMAT_WEBP,
} as const;
/** Largest seed that the server draws itself. */
const MAX_RANDOM_SEED = 999_999_999;

export interface MadeImage {
  readonly jobId: string;
  readonly asset: Asset;
  readonly data: Buffer;
  readonly metadata: JobMetadata;
}

export interface RunOptions {
  readonly client: DarkroomClient;
  readonly model: ImageModel;
  readonly references: readonly Reference[];
  /** Omitted: the whole image is drawn. */
  readonly mask?: Mask | undefined;
  readonly signal: AbortSignal;
  readonly previewsPerSecond?: number;
  /** Called with a small image of the current state. @param fraction of the job that is done */
  readonly onPreview?: (preview: Preview, fraction: number) => void;
}

/**
 * Makes n images: one job after the other, each with as many as one makes. Image k has the first seed + k, whatever the jobs are.
 * @throws InferenceError that the server sent
 */
export async function runImages(request: ImagesRequest, options: RunOptions): Promise<readonly MadeImage[]> {
  const first = BigInt(request.seed ?? randomInt(1, MAX_RANDOM_SEED));
  const images: MadeImage[] = [];
  for (const numImages of splitImages(request.n, options.model.batches)) {
    images.push(...(await runJob(jobOf(request, options, numImages, first + BigInt(images.length)), options)));
  }
  return images;
}

function jobOf(
  request: ImagesRequest,
  { model, references, mask, previewsPerSecond = 0 }: RunOptions,
  numImages: number,
  seed: bigint,
): Partial<GenerateRequest> {
  return {
    prompt: request.prompt,
    negativePrompt: request.negative_prompt,
    jobType: model.jobType,
    model: model.model,
    ...request.size,
    steps: request.steps,
    guidanceScale: request.guidance_scale,
    numImages,
    seed,
    outputFormat: FORMATS[request.output_format],
    outputQuality: request.output_format === 'png' ? 0 : (request.output_compression ?? 0),
    references: [...references],
    mask,
    previewsPerSecond,
  };
}

async function runJob(
  request: Partial<GenerateRequest>,
  { client, signal, onPreview }: RunOptions,
): Promise<readonly MadeImage[]> {
  const parts = new Map<number, Buffer[]>();
  let fraction = 0;
  for await (const { jobId, event } of generate(client, request, signal)) {
    if (event?.$case === 'progress') fraction = event.value.fraction;
    else if (event?.$case === 'preview') onPreview?.(event.value, fraction);
    else if (event?.$case === 'assetChunk') {
      const { index, data } = event.value;
      parts.set(index, [...(parts.get(index) ?? []), data]);
    } else if (event?.$case === 'completed') {
      const { assets, metadata } = event.value;
      if (metadata === undefined) break;
      return assets
        .filter(({ role }) => role === AssetRole.ASSET_ROLE_RESULT)
        .map((asset) => ({ jobId, asset, metadata, data: Buffer.concat(parts.get(asset.index) ?? []) }));
    }
  }
  throw new InferenceError('INTERNAL', 'the job ended without its files');
}
