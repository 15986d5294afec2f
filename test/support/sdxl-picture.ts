import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipelineOptions } from '../../src/pipelines/sdxl/index.js';

/** RGB of one small picture from a pipeline of its own: [height, width, 3]. */
export async function sdxlPicture(
  options: Omit<SdxlPipelineOptions, 'device' | 'threads'>,
  changes: Partial<GenerationRequest> = {},
): Promise<Uint8Array> {
  const pipeline = await createSdxlPipeline({ ...options, device: 'cpu', threads: 1 });
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
    throw new Error('no picture');
  } finally {
    await pipeline.dispose();
  }
}
