import { z } from 'zod';
import type { Family } from '../../src/pipelines/family.js';
import type { ModelInfo, Pipeline, PipelineEvent, PipelineJob } from '../../src/pipelines/pipeline.js';
import type { Backend } from '../../src/runtime/backend.js';

/** Variables of the made-up family: PAINT_PATH is the colour that it paints with, as six hexadecimal digits. */
const paintVariables = {
  PAINT_PATH: z.string().optional().describe('Colour to paint with.'),
  PAINT_NAME: z.string().default('paint').describe('Name of the model.'),
} as const;

interface PaintSource {
  readonly colour: string;
}

/** A family that exists in tests alone: its images have one colour. Nothing outside of the test knows it. */
export const paint: Family<z.infer<z.ZodObject<typeof paintVariables>>, PaintSource> = {
  name: 'paint',
  title: 'Paint',
  isBatched: true,
  schedulers: { names: ['brush'], default: 'brush', resolve: (name) => (name === 'brush' ? name : undefined) },
  samplingPresets: {},
  bareCall: { makes: 'images', steps: 2, guidanceScale: 1, hasNegativePrompt: false },
  negativePrompt: () => 'grey',
  references: { defaultStrength: 0.5 },
  takes: {
    weights: false,
    stepSaving: false,
    skipLayers: false,
    embeddings: false,
    controls: false,
    upscale: false,
    guidanceRescale: false,
    dynamicThresholding: false,
    deepCache: false,
    controlVideo: false,
  },
  variables: paintVariables,
  options: { PAINT_PATH: { flags: '--paint <colour>' } },
  modelName: ({ PAINT_NAME }) => PAINT_NAME,
  sourceFrom: ({ PAINT_PATH: colour }) => (colour === undefined ? undefined : { colour }),
  recognises: () => false,
  open: async ({ colour }, { backend }) => new PaintPipeline(Buffer.from(colour, 'hex'), backend),
  inspect: async () => ({ title: 'Paint', layout: 'original', info, networks: {} }),
};

const info: ModelInfo = {
  family: 'paint',
  parameters: 3,
  weightBytes: 3,
  storage: 'F32',
  predictionType: 'sample',
  schedulers: ['brush'],
  sizeMultiple: 4,
  nativeWidth: 32,
  nativeHeight: 16,
  unused: [],
};

class PaintPipeline implements Pipeline {
  readonly info = info;
  readonly backend: Backend;
  readonly #rgb: Uint8Array;

  constructor(rgb: Uint8Array, backend: Backend) {
    this.#rgb = rgb;
    this.backend = backend;
  }

  async *generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined> {
    for (const [job, { request }] of jobs.entries()) {
      const { width, height, steps, seeds } = request;
      yield { job, kind: 'progress', phase: 'denoise', step: steps, total: steps };
      for (const [index, seed] of seeds.entries()) {
        const rgb = Uint8Array.from({ length: width * height * 3 }, (_, i) => this.#rgb[i % 3] ?? 0);
        yield { job, kind: 'progress', phase: 'decode', step: index + 1, total: seeds.length };
        yield { job, kind: 'image', index, seed, width, height, rgb };
      }
      yield { job, kind: 'done' };
    }
  }

  async dispose(): Promise<void> {}
}
