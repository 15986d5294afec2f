import { imageFromRgb } from '../../src/pipelines/common/rgb-image.js';
import { RunningJobs } from '../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import type { SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { encodePrompts } from '../../src/pipelines/sdxl/prompt/encode-prompts.js';
import { resultOf } from './result-of.js';

/** Latents of a request's first image at the end of the loop. */
export async function latentsOf(pipeline: SdxlPipeline, job: GenerationRequest): Promise<Float32Array> {
  const { prompts, config, autoencoder } = pipeline.networks;
  const running = new RunningJobs([{ request: job, signal: new AbortController().signal }]);
  const conditioning = await resultOf(encodePrompts(0, job, running, prompts, config.forceZerosForEmptyPrompt));
  if (conditioning === undefined) throw new Error('the case was cancelled');
  const initLatents = job.init && (await autoencoder.encodeLatents(imageFromRgb(job.init.rgb, job), job));
  const maskChannels = await pipeline.maskChannels(job);
  const controls = await pipeline.embedControls(job);
  const imagePrompt = await pipeline.encodeImagePrompt(job);
  const inputs = { initLatents, maskChannels, controls, imagePrompt };
  const image = pipeline.startImage(0, job, 0, conditioning, inputs);
  for await (const _ of pipeline.denoise([image], running));
  return image.latents;
}
