/** What a file tells of its making: all of it, only that a model made it, or nothing. */
export const metadataLevels = ['full', 'provenance', 'none'] as const;
export type MetadataLevel = (typeof metadataLevels)[number];

/** What made one picture: enough to make it again. */
export interface GenerationParameters {
  readonly prompt: string;
  readonly negativePrompt?: string | undefined;
  /** Of this picture, not of its batch. */
  readonly seed: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly scheduler: string;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  /** What requests call the model. */
  readonly model: string;
  /** Weighted phrases as the caller wrote them; omitted: the prompt stood alone. */
  readonly promptWeights?: string | undefined;
  /** Omitted: there was no reference. */
  readonly referenceStrength?: number | undefined;
  /** Omitted: all steps were guided. */
  readonly guidanceInterval?: { readonly start: number; readonly end: number } | undefined;
  /** 0 or omitted: no step reused another's residual. */
  readonly reuseThreshold?: number | undefined;
  /** Of the server. */
  readonly version: string;
}

export type ImageMetadata =
  | { readonly kind: 'full'; readonly parameters: GenerationParameters }
  | { readonly kind: 'provenance' }
  | { readonly kind: 'none' };

/**
 * The parameters as A1111 writes them and its successors read them: prompt, negative prompt, then one line of settings.
 * https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/v1.10.1/modules/infotext_utils.py
 *
 * @param maxTextUnits UTF-16 units of each text that a caller wrote; a longer one is cut and ends in "…". Omitted: all of it.
 */
export function parametersText(parameters: GenerationParameters, maxTextUnits?: number): string {
  const { steps, scheduler, guidanceScale, seed, width, height, model, referenceStrength, version } = parameters;
  const { guidanceInterval: guided, reuseThreshold } = parameters;
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
    ['Guidance interval', guided && `${guided.start}-${guided.end}`],
    ['Reuse threshold', reuseThreshold || undefined],
    ['Version', `darkroom ${version}`],
  ]
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${quoted(String(value))}`);
  return `${promptsText(parameters, maxTextUnits)}\n${settings.join(', ')}`;
}

/** The prompt and, where there is one, the negative prompt, as they stand in `parametersText`. */
export function promptsText({ prompt, negativePrompt }: GenerationParameters, maxTextUnits?: number): string {
  const negative = negativePrompt ? `\nNegative prompt: ${cleanText(negativePrompt, maxTextUnits)}` : '';
  return `${cleanText(prompt, maxTextUnits)}${negative}`;
}

// Values are split at commas and colons by those who read them; JSON quotes keep one whole.
function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}

/** Text that XML, UTF-8 and UTF-16 can all hold: what they cannot (control characters, half surrogate pairs) becomes U+FFFD. */
function cleanText(text: string, maxUnits = Number.POSITIVE_INFINITY): string {
  const cut = text.length > maxUnits ? `${text.slice(0, maxUnits - 1).replace(/\p{Cs}$/u, '')}…` : text;
  return cut.replace(/\r\n?/g, '\n').replace(/(?![\t\n])\p{Cc}|[\p{Cs}\u{fffe}\u{ffff}]/gu, '\u{fffd}');
}
