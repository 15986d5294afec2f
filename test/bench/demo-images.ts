import type { GenerationRequest, Pipeline } from '../../src/pipelines/pipeline.js';

const SCENES = [
  'red circle on a blue',
  'green star on a white',
  'yellow square on a black',
  'purple triangle on a green',
];

/** Twelve images of the demo model, three of each scene. */
export function demoRequests(steps: number): readonly GenerationRequest[] {
  return SCENES.flatMap((scene, i) =>
    [0, 1, 2].map((k) => ({
      ...imageRequest(`a ${scene} background`, 128, steps),
      guidanceScale: 4,
      seeds: [3 * i + k],
    })),
  );
}

export function imageRequest(prompt: string, side: number, steps: number): GenerationRequest {
  return {
    ...{ prompt, negativePrompt: undefined, width: side, height: side, steps, guidanceScale: 6 },
    ...{ scheduler: 'euler', seeds: [1] },
  };
}

export async function draw(pipeline: Pipeline, requests: readonly GenerationRequest[]): Promise<readonly Uint8Array[]> {
  const images: Uint8Array[] = [];
  for (const request of requests)
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }]))
      if (event.kind === 'image') images.push(event.rgb);
  return images;
}

/** Means over all pixels, of 255: of all images together, and of the one that differs most. */
export function describeDifference(images: readonly Uint8Array[], others: readonly Uint8Array[]): string {
  const errors = images.map((image, i) => meanDifference(image, others[i] ?? new Uint8Array()));
  const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
  return `mean difference ${mean.toFixed(2)} of 255, largest of an image ${Math.max(...errors).toFixed(2)}`;
}

function meanDifference(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
}
