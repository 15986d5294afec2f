import type { OutputOptions } from '../../engine/messages.js';
import { InferenceError } from '../../errors.js';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { OutputFormat, OutputMetadata } from '../../gen/darkroom/v1/job.js';
import { checkEnum, isEnumValue } from './enum-values.js';
import type { Check } from './field-checks.js';
import type { Preset } from './presets.js';
import type { RequestContext } from './request-context.js';

const MAX_PREVIEWS_PER_SECOND = 4;
const IMAGE_FORMATS: readonly number[] = [
  OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
  OutputFormat.OUTPUT_FORMAT_PNG,
  OutputFormat.OUTPUT_FORMAT_WEBP,
  OutputFormat.OUTPUT_FORMAT_JPEG,
];
const VIDEO_FORMATS: readonly number[] = [
  OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
  OutputFormat.OUTPUT_FORMAT_MP4,
  OutputFormat.OUTPUT_FORMAT_WEBP,
];

/** Checks what a request says about its files and previews. */
export function checkOutput(request: GenerateRequest, makes: Preset['makes'], check: Check): void {
  const { outputFormat, outputQuality, outputMetadata, previewsPerSecond } = request;
  checkEnum(OutputFormat, 'OutputFormat', 'output_format', outputFormat, check);
  const isVideo = makes === 'video';
  check(
    (isVideo ? VIDEO_FORMATS : IMAGE_FORMATS).includes(outputFormat) || !isEnumValue(OutputFormat, outputFormat),
    'output_format',
    isVideo
      ? 'output_format of a video must be OUTPUT_FORMAT_MP4 or OUTPUT_FORMAT_WEBP'
      : 'output_format of an image must be OUTPUT_FORMAT_PNG, OUTPUT_FORMAT_WEBP or OUTPUT_FORMAT_JPEG',
  );
  check(
    previewsPerSecond >= 0 && previewsPerSecond <= MAX_PREVIEWS_PER_SECOND,
    'previews_per_second',
    `previews_per_second ${previewsPerSecond} must be >= 0 and <= ${MAX_PREVIEWS_PER_SECOND}`,
  );
  check(
    outputQuality <= 100,
    'output_quality',
    `output_quality ${outputQuality} must be >= 1 and <= 100; 0 takes the default`,
  );
  checkEnum(OutputMetadata, 'OutputMetadata', 'output_metadata', outputMetadata, check);
}

const FORMATS: Readonly<Record<number, OutputOptions['format']>> = {
  [OutputFormat.OUTPUT_FORMAT_WEBP]: 'webp',
  [OutputFormat.OUTPUT_FORMAT_JPEG]: 'jpeg',
};

const METADATA: Readonly<Record<number, OutputOptions['metadata']>> = {
  [OutputMetadata.OUTPUT_METADATA_FULL]: 'full',
  [OutputMetadata.OUTPUT_METADATA_PROVENANCE]: 'provenance',
  [OutputMetadata.OUTPUT_METADATA_NONE]: 'none',
};

/**
 * Plans the files of a checked request.
 * @throws InferenceError FFMPEG_MISSING for a video where there is no ffmpeg
 */
export function planOutput(
  { outputFormat, outputQuality, outputMetadata }: GenerateRequest,
  makes: Preset['makes'],
  { config, ffmpeg, model: { info } }: Pick<RequestContext, 'config' | 'ffmpeg' | 'model'>,
): OutputOptions {
  const common = {
    ...(outputQuality > 0 && { quality: outputQuality }),
    metadata: METADATA[outputMetadata] ?? config.OUTPUT_METADATA,
  };
  if (makes !== 'video' || info.clip === undefined) return { format: FORMATS[outputFormat] ?? 'png', ...common };
  if (!ffmpeg.found) {
    throw new InferenceError('FFMPEG_MISSING', `videos need ffmpeg: ${ffmpeg.detail}; ${ffmpeg.fix}`);
  }
  return {
    // The poster's.
    format: 'jpeg',
    ...common,
    video: {
      ffmpeg: ffmpeg.path,
      format: outputFormat === OutputFormat.OUTPUT_FORMAT_WEBP ? 'webp' : 'mp4',
      fps: info.clip.fps,
      crf: config.VIDEO_CRF,
    },
  };
}
