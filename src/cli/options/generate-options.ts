import { readFile } from 'node:fs/promises';
import { InvalidArgumentError, Option } from 'commander';
import { InferenceError } from '../../errors.js';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import {
  type Control,
  ControlMode,
  type ControlVideo,
  type DynamicThresholding,
  JobType,
  type Lora,
  OutputFormat,
  OutputMetadata,
  PromptSyntax,
  type Reference,
  ReferenceRole,
  ReferenceType,
  type SkipLayerGuidance,
  type Upscale,
} from '../../gen/darkroom/v1/job.js';
import { integer, number } from './parse-option.js';

/** Options of `generate` and `estimate`. */
export interface RequestOptions {
  readonly jobId?: string;
  readonly jobType?: JobType;
  readonly model?: string;
  readonly negative?: string;
  readonly weights?: string;
  readonly syntax?: PromptSyntax;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly guidance?: number;
  readonly guidanceScale?: number;
  readonly guidanceRescale?: number;
  readonly dynamicThresholding?: DynamicThresholding;
  readonly guidanceStart?: number;
  readonly guidanceEnd?: number;
  readonly reuse?: number;
  readonly skipLayers?: SkipLayerGuidance;
  readonly scheduler?: string;
  readonly samplingPreset?: string;
  readonly numImages?: number;
  readonly seed?: bigint;
  readonly frames?: number;
  readonly reference?: string;
  readonly start?: string;
  readonly end?: string;
  readonly look?: string;
  readonly mask?: string;
  readonly maskBlur?: number;
  readonly maskCrop?: number;
  readonly referenceType?: ReferenceType;
  readonly referenceStrength?: number;
  readonly denoise?: number;
  readonly format?: OutputFormat;
  readonly quality?: number;
  readonly metadata?: OutputMetadata;
  readonly lora?: readonly Lora[];
  readonly control?: readonly string[];
  readonly controlVideo?: string;
  readonly controlVideoScale?: number;
  readonly deepCache?: number;
  readonly upscale?: number;
  readonly upscaler?: string;
  readonly upscaleStrength?: number;
  readonly upscaleSteps?: number;
}

export function requestOptions(): readonly Option[] {
  return [
    new Option('--job-id <id>', 'idempotency key; the files are named after it'),
    new Option('--job-type <name>', 'preset, for example sdxl_image_high').argParser(enumParser(JobType, 'JOB_TYPE')),
    new Option('--model <name>', 'model, as the server lists it'),
    new Option('--negative <text>', 'negative prompt'),
    new Option('--weights <phrases>', 'weighted phrases behind the prompt, for example "(golden hour:1.3)"'),
    new Option('--syntax <name>', 'diffusers, plain or weighted: how the prompt is read').argParser(
      enumParser(PromptSyntax, 'PROMPT_SYNTAX'),
    ),
    new Option('--width <pixels>', 'multiple of 8').argParser(number),
    new Option('--height <pixels>', 'multiple of 8').argParser(number),
    new Option('--steps <n>', 'denoising steps').argParser(number),
    new Option('--guidance <scale>', 'guidance scale').argParser(number),
    new Option('--guidance-scale <scale>', 'the same').argParser(number).hideHelp(),
    new Option('--guidance-rescale <share>', 'how much guidance keeps of the contrast without it, 0 to 1').argParser(
      number,
    ),
    new Option(
      '--dynamic-thresholding <mimic[:percentile]>',
      'keep the values of guidance in the range of a lower scale, for example 7:0.95',
    ).argParser(thresholdingOf),
    new Option(
      '--guidance-start <share>',
      'share of the steps after which guidance begins, 0 to 1; videos only',
    ).argParser(number),
    new Option('--guidance-end <share>', 'share of the steps after which guidance ends, 0 to 1; videos only').argParser(
      number,
    ),
    new Option('--reuse <threshold>', 'reuse the residual between steps, 0 to 1; videos only').argParser(number),
    new Option(
      '--skip-layers <layers[:start[:end[:scale]]]>',
      'blocks that are skipped in the unconditional half, for example 9,10:0.1:0.9; with a scale, in a run of their own',
    ).argParser(skipLayersOf),
    new Option('--scheduler <name>', 'scheduler, as the server lists it'),
    new Option('--sampling-preset <name>', 'settings of a model distilled for a few steps, such as lightning_4; none'),
    new Option('--num-images <n>', '1, 3 or 6').argParser(number),
    new Option('--seed <n>', 'seed of the first image').argParser(integer),
    new Option('--frames <n>', 'frames of a video, 4n + 1').argParser(number),
    new Option('--reference <file|url>', 'image to start from, or to look like; for a video its first frame'),
    new Option('--start <file|url>', 'first frame of a video'),
    new Option('--end <file|url>', 'last frame of a video'),
    new Option(
      '--look <file|url>',
      'image that a video is to look like, none of its frames; VACE and Fun-Control V1.1',
    ),
    new Option('--mask <file|url>', 'part of the reference that is drawn anew: white, or transparent'),
    new Option('--mask-blur <pixels>', 'blur of the mask, 0 to 64').argParser(number),
    new Option('--mask-crop <pixels>', 'draw only the masked part, at the full size, with pixels around it').argParser(
      number,
    ),
    new Option('--reference-type <name>', 'style, composition or character').argParser(
      enumParser(ReferenceType, 'REFERENCE_TYPE'),
    ),
    new Option('--reference-strength <n>', 'how strongly it conditions, 0.1 to 1').argParser(number),
    new Option('--denoise <n>', "diffusers' strength, ComfyUI's denoise, instead of the two").argParser(number),
    new Option(
      '--control <name[@mode][:scale[:start[:end]]]=file|url>',
      'ControlNet, as the server lists it, and its image; of a union model also its kind (depth, canny, …); up to four',
    ).argParser((text: string, before: readonly string[] = []) => [...before, text]),
    new Option('--control-video <file|url>', 'video that a video follows: poses, depth, edges; VACE and Fun-Control'),
    new Option('--control-video-scale <n>', 'how strongly VACE follows it, 0 to 2').argParser(number),
    new Option('--deep-cache <interval>', 'every so many runs of the denoiser one is whole, 2 to 10').argParser(number),
    new Option(
      '--upscale <factor>',
      'enlarges the result, above 1 to 4; 2 where only another option of it is given',
    ).argParser(number),
    new Option(
      '--upscaler <name>',
      'how it enlarges: latent, or an upscaler as the server lists it; without it Lanczos',
    ),
    new Option('--upscale-strength <share>', 'how much of the enlarged image is drawn again, 0 to 1').argParser(number),
    new Option('--upscale-steps <n>', 'steps of which that share is run').argParser(number),
    new Option('--lora <name[:weight]>', 'LoRA on top of the model, as the server lists it; up to four').argParser(
      (text: string, before: readonly Lora[] = []) => [...before, loraOf(text)],
    ),
    new Option('--format <name>', 'png, webp or jpeg; mp4 or webp for videos').argParser(
      enumParser(OutputFormat, 'OUTPUT_FORMAT'),
    ),
    new Option('--quality <n>', 'of webp and jpeg, 1 to 100').argParser(number),
    new Option('--metadata <level>', 'full, provenance or none: what the files say about themselves').argParser(
      enumParser(OutputMetadata, 'OUTPUT_METADATA'),
    ),
  ];
}

export async function requestFrom(prompt: string, options: RequestOptions): Promise<Partial<GenerateRequest>> {
  const { guidanceStart: start, guidanceEnd: end } = options;
  const { REFERENCE_ROLE_UNSPECIFIED: single, REFERENCE_ROLE_START: first, REFERENCE_ROLE_END: last } = ReferenceRole;
  const { REFERENCE_ROLE_LOOK: look } = ReferenceRole;
  const references = [
    [options.reference, single],
    [options.start, first],
    [options.end, last],
    [options.look, look],
  ] as const;
  const given = references.flatMap(([place, role]) =>
    place === undefined ? [] : [referenceFrom(place, role, options)],
  );
  return {
    prompt,
    jobId: options.jobId ?? '',
    jobType: options.jobType ?? JobType.JOB_TYPE_UNSPECIFIED,
    model: options.model ?? '',
    negativePrompt: options.negative,
    weights: options.weights ?? '',
    promptSyntax: options.syntax ?? PromptSyntax.PROMPT_SYNTAX_UNSPECIFIED,
    width: options.width ?? 0,
    height: options.height ?? 0,
    steps: options.steps,
    guidanceScale: options.guidance ?? options.guidanceScale,
    guidanceRescale: options.guidanceRescale,
    dynamicThresholding: options.dynamicThresholding,
    guidanceInterval: start === undefined && end === undefined ? undefined : { start, end },
    reuseThreshold: options.reuse ?? 0,
    skipLayerGuidance: options.skipLayers,
    scheduler: options.scheduler ?? '',
    samplingPreset: options.samplingPreset ?? '',
    numImages: options.numImages ?? 0,
    seed: options.seed,
    frames: options.frames ?? 0,
    references: await Promise.all(given),
    mask:
      options.mask === undefined
        ? undefined
        : {
            source: await sourceFrom(options.mask),
            blur: options.maskBlur ?? 0,
            cropPadding: options.maskCrop,
          },
    controls: await Promise.all((options.control ?? []).map(controlFrom)),
    controlVideo: await controlVideoFrom(options),
    upscale: upscaleFrom(options),
    deepCacheInterval: options.deepCache ?? 0,
    loras: [...(options.lora ?? [])],
    outputFormat: options.format ?? OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
    outputQuality: options.quality ?? 0,
    outputMetadata: options.metadata ?? OutputMetadata.OUTPUT_METADATA_UNSPECIFIED,
  };
}

/** Parses NAME, NAME:WEIGHT or NAME:TEXT_ENCODER_WEIGHT:WEIGHT, as in a prompt. */
function loraOf(text: string): Lora {
  const [name = '', first, second, ...rest] = text.split(':');
  if (name === '' || rest.length > 0) throw new InvalidArgumentError('must be NAME, NAME:WEIGHT or NAME:TEXT:WEIGHT.');
  const [own, other] = [first, second].map((weight) => (weight === undefined ? undefined : number(weight)));
  return other === undefined
    ? { name, weight: own, textEncoderWeight: undefined }
    : { name, weight: other, textEncoderWeight: own };
}

/** Parses MIMIC_SCALE or MIMIC_SCALE:PERCENTILE. */
function thresholdingOf(text: string): DynamicThresholding {
  const [mimicScale, percentile, ...rest] = text.split(':').map(number);
  if (rest.length > 0) throw new InvalidArgumentError('must be SCALE or SCALE:PERCENTILE, for example 7:0.95.');
  return { mimicScale, percentile };
}

/** Parses LAYERS, LAYERS:START, LAYERS:START:END or LAYERS:START:END:SCALE; layers stand between commas. */
function skipLayersOf(text: string): SkipLayerGuidance {
  const [layers = '', ...rest] = text.split(':');
  if (!/^\d{1,4}(,\d{1,4})*$/.test(layers) || rest.length > 3)
    throw new InvalidArgumentError('must be LAYERS, or LAYERS:START:END:SCALE, for example 9,10:0.1:0.9.');
  const [start, end, scale = 0] = rest.map(number);
  return { layers: layers.split(',').map(Number), start, end, scale };
}

/** Parses NAME=PLACE, NAME:SCALE=PLACE or NAME:SCALE:START:END=PLACE; NAME may end in @MODE. */
async function controlFrom(text: string): Promise<Control> {
  const at = text.indexOf('=');
  const [target = '', scale, start, end, ...rest] = text.slice(0, Math.max(0, at)).split(':');
  const [name = '', kind] = target.split('@');
  if (name === '' || rest.length > 0)
    throw new InferenceError(
      'INVALID_REQUEST',
      `--control ${text} must be NAME=FILE, NAME:SCALE=FILE or NAME:SCALE:START:END=FILE`,
    );
  const mode =
    kind === undefined ? ControlMode.CONTROL_MODE_UNSPECIFIED : enumParser(ControlMode, 'CONTROL_MODE')(kind);
  const [scaled, from, to] = [scale, start, end].map((value) => (value === undefined ? undefined : number(value)));
  return { name, source: await sourceFrom(text.slice(at + 1)), scale: scaled, start: from, end: to, mode };
}

async function controlVideoFrom({
  controlVideo: place,
  controlVideoScale: scale,
}: RequestOptions): Promise<ControlVideo | undefined> {
  if (place === undefined && scale === undefined) return undefined;
  const source = place === undefined ? undefined : await sourceFrom(place, 'a video');
  return { source: source?.$case === 'image' ? { $case: 'video', value: source.value } : source, scale };
}

/** One of its options is enough. */
function upscaleFrom({
  upscale: factor,
  upscaler,
  upscaleStrength: strength,
  upscaleSteps: steps,
}: RequestOptions): Upscale | undefined {
  const isAsked = [factor, upscaler, strength, steps].some((option) => option !== undefined);
  return isAsked ? { upscaler: upscaler ?? '', factor, strength, steps: steps ?? 0 } : undefined;
}

/**
 * @param place a file or a URL
 * @param what is in the file
 */
async function sourceFrom(place: string, what = 'an image'): Promise<Reference['source']> {
  const isUrl = /^[a-z][a-z0-9+.-]+:\/\//i.test(place);
  return isUrl ? { $case: 'url', value: place } : { $case: 'image', value: await readFile(place).catch(unreadable) };

  function unreadable(cause: NodeJS.ErrnoException): never {
    const problem = `${place} cannot be read (${cause.code ?? cause.message}); name ${what} file or a URL`;
    throw new InferenceError('INVALID_REQUEST', problem, { cause });
  }
}

async function referenceFrom(place: string, role: ReferenceRole, options: RequestOptions): Promise<Reference> {
  return {
    source: await sourceFrom(place),
    type: options.referenceType ?? ReferenceType.REFERENCE_TYPE_UNSPECIFIED,
    role,
    strength: options.referenceStrength,
    denoisingStrength: options.denoise,
  };
}

/** Parses an enum's names without their prefix, in any case: "jpeg" is OUTPUT_FORMAT_JPEG. */
function enumParser<T extends number>(values: Readonly<Record<string, T>>, prefix: string): (name: string) => T {
  const known = Object.entries(values).filter(([key]) => key.startsWith(prefix) && !key.endsWith('_UNSPECIFIED'));
  return (name) => {
    const found = known.find(([key]) => key === `${prefix}_${name.toUpperCase()}`);
    if (found !== undefined) return found[1];
    const names = known.map(([key]) => key.slice(prefix.length + 1).toLowerCase());
    throw new InvalidArgumentError(
      `${prefix.toLowerCase().replaceAll('_', ' ')} "${name}" must be one of ${names.join(', ')}`,
    );
  };
}
