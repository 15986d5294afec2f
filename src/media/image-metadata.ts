/** Metadata that a file has about its making: everything, only that a model made it, or nothing. */
const metadataLevels = ['full', 'provenance', 'none'] as const;
export type MetadataLevel = (typeof metadataLevels)[number];

/** The parameters of one image: enough to generate it again. */
export interface GenerationParameters {
  readonly prompt: string;
  readonly negativePrompt?: string | undefined;
  /** Seed of this image, not of its batch. */
  readonly seed: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly scheduler: string;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  /** Name of the model in requests. */
  readonly model: string;
  /** Weighted phrases as the caller wrote them. Omitted: there were none. */
  readonly promptWeights?: string | undefined;
  /** Omitted: there was no reference. */
  readonly referenceStrength?: number | undefined;
  /** Omitted: all steps were guided. */
  readonly guidanceInterval?: { readonly start: number; readonly end: number } | undefined;
  /** 0 or omitted: no step reused a residual. */
  readonly reuseThreshold?: number | undefined;
  /** Omitted: guidance could give any value. */
  readonly dynamicThresholding?: { readonly mimicScale: number; readonly percentile: number } | undefined;
  /** Omitted: every block of the transformer was run. */
  readonly skipLayers?: SkipLayersParameters | undefined;
  /** Omitted: the image was not enlarged. */
  readonly upscale?: UpscaleParameters | undefined;
  /** Version of the server. */
  readonly version: string;
}

/** Blocks that were skipped from `start` to `end`, shares of the steps, in the unconditional half or, with a scale, in a run of its own. */
export interface SkipLayersParameters {
  readonly layers: readonly number[];
  readonly start: number;
  readonly end: number;
  readonly scale: number;
}

/** What enlarged an image from `width` x `height`. */
export interface UpscaleParameters {
  /** Lanczos, latent, or the name of a file. */
  readonly upscaler: string;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  /** 0: it was not drawn again. */
  readonly strength: number;
}

export type ImageMetadata =
  | { readonly kind: 'full'; readonly parameters: GenerationParameters }
  | { readonly kind: 'provenance' }
  | { readonly kind: 'none' };

/**
 * The parameters as A1111 writes them and its successors read them: prompt, negative prompt, then one line of settings.
 * https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/v1.10.1/modules/infotext_utils.py
 *
 * @param maxTextUnits largest length of each text from the caller, in UTF-16 units. A longer one is cut and ends in "…". Omitted: no limit
 */
export function parametersText(parameters: GenerationParameters, maxTextUnits?: number): string {
  const { steps, scheduler, guidanceScale, seed, width, height, model, referenceStrength, version } = parameters;
  const { guidanceInterval: guided, reuseThreshold, skipLayers: skipped, dynamicThresholding, upscale } = parameters;
  const promptWeights = parameters.promptWeights && cleanText(parameters.promptWeights, maxTextUnits);
  const settings = [
    ['Steps', steps],
    ['Sampler', scheduler],
    ['CFG scale', guidanceScale],
    ['Seed', seed],
    ['Size', `${width}x${height}`],
    ['Model', model],
    ['Prompt weights', promptWeights || undefined],
    ['Reference strength', referenceStrength],
    ['Denoising strength', upscale?.strength || undefined],
    ['Hires resize', upscale && `${upscale.width}x${upscale.height}`],
    ['Hires steps', upscale?.strength ? upscale.steps : undefined],
    ['Hires upscaler', upscale?.upscaler],
    ['Guidance interval', guided && `${guided.start}-${guided.end}`],
    ['Reuse threshold', reuseThreshold || undefined],
    ...thresholdingSettings(dynamicThresholding),
    ['Skip layers', skipped?.layers.join(' ')],
    ['Skip layers interval', skipped && `${skipped.start}-${skipped.end}`],
    ['Skip layers scale', skipped?.scale || undefined],
    ['Version', `darkroom ${version}`],
  ]
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${quoted(String(value))}`);
  return `${promptsText(parameters, maxTextUnits)}\n${settings.join(', ')}`;
}

/** Dynamic thresholding as its extension for A1111 writes it; what it lets users choose beside these two is fixed here. */
function thresholdingSettings(
  thresholding: GenerationParameters['dynamicThresholding'],
): readonly (readonly [string, string | number])[] {
  if (thresholding === undefined) return [];
  return [
    ['Dynamic thresholding enabled', 'True'],
    ['Mimic scale', thresholding.mimicScale],
    ['Separate Feature Channels', 'False'],
    ['Scaling Startpoint', 'MEAN'],
    ['Variability Measure', 'AD'],
    ['Interpolate Phi', 1],
    ['Threshold percentile', 100 * thresholding.percentile],
  ];
}

/** The prompt and the negative prompt, if there is one, as `parametersText` has them. */
export function promptsText({ prompt, negativePrompt }: GenerationParameters, maxTextUnits?: number): string {
  const negative = negativePrompt ? `\nNegative prompt: ${cleanText(negativePrompt, maxTextUnits)}` : '';
  return `${cleanText(prompt, maxTextUnits)}${negative}`;
}

// Readers split the line at commas and colons; JSON quotes keep a value together.
function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}

/** Replaces characters that XML, UTF-8 or UTF-16 cannot hold (control characters, half surrogate pairs) by U+FFFD. */
function cleanText(text: string, maxUnits = Number.POSITIVE_INFINITY): string {
  const cut = text.length > maxUnits ? `${text.slice(0, maxUnits - 1).replace(/\p{Cs}$/u, '')}…` : text;
  return cut.replace(/\r\n?/g, '\n').replace(/(?![\t\n])\p{Cc}|[\p{Cs}\u{fffe}\u{ffff}]/gu, '\u{fffd}');
}
