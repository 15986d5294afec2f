import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import type { SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';

/** A request of the tiny SDXL for one image of 64x64 in four Euler steps, guided. */
export function sdxlRequest(more: Partial<GenerationRequest> = {}): GenerationRequest {
  return {
    ...{ prompt: 'a red circle', negativePrompt: undefined, width: 64, height: 64, steps: 4, guidanceScale: 5 },
    ...{ scheduler: 'euler', seeds: [3] },
    ...more,
  };
}

/** The images of requests that are made together, in the order of the requests and of their seeds. */
export async function imagesOf(from: SdxlPipeline, ...requests: readonly GenerationRequest[]): Promise<Uint8Array[]> {
  const images = new Map<string, Uint8Array>();
  const jobs = requests.map((request) => ({ request, signal: new AbortController().signal }));
  for await (const event of from.generate(jobs))
    if (event.kind === 'image') images.set(`${event.job} ${event.index}`, event.rgb);
  return [...images].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, rgb]) => rgb);
}
