import { callsInStep } from '../../schedulers/beta-schedulers.js';
import type { GenerationRequest, GuidanceInterval } from '../pipeline.js';
import { firstStep } from './batching.js';
import { cleanLatents, type NoisySample, outputOfLatents } from './clean-latents.js';
import { thresholded } from './dynamic-thresholding.js';

/**
 * True if a step is run on both prompts. Guidance in the middle of the noise levels alone: Kynkäänniemi et al.,
 * arXiv:2404.07724.
 */
export function isGuided({ guidanceScale, steps, video }: GenerationRequest, step: number): boolean {
  return guidanceScale > 1 && isInside(video?.guidanceInterval ?? { start: 0, end: 1 }, step, steps);
}

/**
 * True if skip-layer guidance acts in a step: with a scale it has a run of its own, without one it acts in the unconditional half
 * of a guided step.
 */
export function skipsLayers(request: GenerationRequest, step: number): boolean {
  const skipping = request.video?.skipLayers;
  if (skipping === undefined || !isInside(skipping, step, request.steps)) return false;
  return skipping.scale > 0 || isGuided(request, step);
}

function isInside({ start, end }: GuidanceInterval, step: number, steps: number): boolean {
  // Quotients, not products: 7 / 100 is the 0.07 that a caller wrote, 0.07 * 100 is more than 7.
  return step / steps >= start && step / steps < end;
}

/** Texts that the denoiser is run on in a step: the prompt; with guidance the negative one; what skip-layer guidance adds. */
export function rowsInStep(request: GenerationRequest, step: number): number {
  const { scale = 0 } = request.video?.skipLayers ?? {};
  return 1 + (isGuided(request, step) ? 1 : 0) + (scale > 0 && skipsLayers(request, step) ? 1 : 0);
}

/** True for a call of the denoiser that reuses the deep features of a whole one. @param call of those that are run */
export function reusesDeep({ deepCacheInterval = 1 }: GenerationRequest, call: number): boolean {
  return call % deepCacheInterval !== 0;
}

/** Runs of the denoiser, of one text each, that one image or video takes where none is saved by reuse. */
export function plannedForwards(request: GenerationRequest): number {
  let forwards = 0;
  for (let step = firstStep(request); step < request.steps; step += 1) {
    const isLast = step === request.steps - 1;
    forwards += (isLast ? 1 : callsInStep(request.scheduler, step)) * rowsInStep(request, step);
  }
  return forwards;
}

/** Work of a run that reuses deep features in that of a whole one: measured, see docs/reference/performance.md. */
const SHALLOW_SHARE = 0.07;

/** Work of a ControlNet's run in that of the denoiser's, whose way down and middle it has. */
const CONTROL_SHARE = 0.5;

/** The same runs with those of ControlNets, and those that reuse deep features, as shares of a whole one of the denoiser. */
export function plannedWork(request: GenerationRequest): number {
  const { controls = [], deepCacheInterval: interval = 1 } = request;
  const beside = controls.reduce((sum, { start, end }) => sum + CONTROL_SHARE * (end - start), 0);
  return plannedForwards(request) * (beside + 1 / interval + SHALLOW_SHARE * (1 - 1 / interval));
}

/** True if any step needs the negative prompt. */
export function isEverGuided(request: GenerationRequest): boolean {
  for (let step = firstStep(request); step < request.steps; step += 1) if (isGuided(request, step)) return true;
  return false;
}

/** Texts that the denoiser is run on together at most. */
export function mostRows(request: GenerationRequest): number {
  let most = 1;
  for (let step = firstStep(request); step < request.steps; step += 1) most = Math.max(most, rowsInStep(request, step));
  return most;
}

/**
 * Guidance with the range of values of a lower scale, where the request has dynamic thresholding.
 * @param sampleOf what the denoiser saw; asked for where it is needed
 * @param channels of the latents
 */
export function guideThresholded(
  unconditional: Float32Array,
  conditional: Float32Array,
  { guidanceScale, dynamicThresholding }: GenerationRequest,
  sampleOf: () => NoisySample,
  channels: number,
): Float32Array {
  const guided = guide(unconditional, conditional, guidanceScale);
  const { mimicScale = guidanceScale, percentile = 1 } = dynamicThresholding ?? {};
  if (mimicScale === guidanceScale) return guided;
  const sample = sampleOf();
  const mimicked = guide(unconditional, conditional, mimicScale);
  const [clean, range] = [cleanLatents(sample, guided), cleanLatents(sample, mimicked)];
  return outputOfLatents(sample, thresholded(clean, range, channels, percentile));
}

/**
 * Brings the deviation of a guided output back to that of the conditional one, by a share: it keeps bright and flat images of models
 * with zero terminal SNR from burning out. Lin et al., arXiv:2305.08891, section 3.4.
 * @param share 0 to 1; 0 leaves the guided output as it is
 */
export function rescaleGuided(guided: Float32Array, conditional: Float32Array, share: number): Float32Array {
  if (share === 0) return guided;
  const ratio = deviation(conditional) / deviation(guided);
  const rescaled = new Float32Array(guided.length);
  for (let i = 0; i < rescaled.length; i += 1) {
    const value = guided[i] ?? 0;
    rescaled[i] = share * value * ratio + (1 - share) * value;
  }
  return rescaled;
}

function deviation(values: Float32Array): number {
  let [sum, squares] = [0, 0];
  for (let i = 0; i < values.length; i += 1) sum += values[i] ?? 0;
  const mean = sum / values.length;
  for (let i = 0; i < values.length; i += 1) squares += ((values[i] ?? 0) - mean) ** 2;
  return Math.sqrt(squares / (values.length - 1));
}

/** Classifier-free guidance. Ho and Salimans, arXiv:2207.12598. */
export function guide(unconditional: Float32Array, conditional: Float32Array, guidanceScale: number): Float32Array {
  // A plain loop: a video has millions of latents, for which `map` takes several times as long.
  const guided = new Float32Array(unconditional.length);
  for (let i = 0; i < guided.length; i += 1) {
    const value = unconditional[i] ?? 0;
    guided[i] = value + guidanceScale * Math.fround((conditional[i] ?? 0) - value);
  }
  return guided;
}
