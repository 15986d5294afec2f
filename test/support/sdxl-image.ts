import type { LoraSource } from '../../src/pipelines/lora/read-lora.js';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipelineOptions } from '../../src/pipelines/sdxl/pipeline.js';
import { cpuBackend } from './cpu-backend.js';

/** RGB of one small image from a pipeline of its own: [height, width, 3]. */
export async function sdxlImage(
  { loras = [], ...options }: Omit<SdxlPipelineOptions, 'backend'> & { loras?: readonly LoraSource[] },
  changes: Partial<GenerationRequest> = {},
): Promise<Uint8Array> {
  const base = await createSdxlPipeline({ ...options, backend: cpuBackend });
  const pipeline = loras.length === 0 ? base : await base.withLoras(loras);
  const request: GenerationRequest = {
    prompt: 'a red circle',
    negativePrompt: undefined,
    width: 64,
    height: 64,
    steps: 2,
    guidanceScale: 5,
    scheduler: 'euler',
    seeds: [3],
    ...changes,
  };
  try {
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }]))
      if (event.kind === 'image') return event.rgb;
    throw new Error('no image');
  } finally {
    if (pipeline !== base) await pipeline.dispose();
    await base.dispose();
  }
}
