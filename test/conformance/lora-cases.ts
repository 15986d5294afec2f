import { join } from 'node:path';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import type { Backend } from '../../src/runtime/backend.js';
import type { Expected } from './golden-folder.js';
import { type Case, type CaseResult, judge } from './report.js';
import { predictedNoise, type UNetCases } from './sdxl-cases.js';

interface LoraCase {
  readonly name: string;
  readonly scale: number;
  readonly files: readonly string[];
  readonly prompt: string;
  readonly timestep: number;
  readonly key: string;
}

export interface LoraCases {
  /** The folder of the checkpoint's goldens, with a note behind it. */
  readonly base: string;
  readonly cases: readonly LoraCase[];
}

export function isLoraCases(content: unknown): content is LoraCases {
  return typeof content === 'object' && content !== null && 'base' in content && 'cases' in content;
}

/** Prompt and UNet with a LoRA in each of its formats. @param inputs of the base's own UNet case */
export function loraCases(
  { cases }: LoraCases,
  { folder, model, inputs, expected, backend, finish }: Surroundings,
): readonly Case[] {
  let base: Promise<SdxlPipeline> | undefined;
  finish.unshift(async () => (await base)?.dispose());
  return cases.flatMap((entry) =>
    entry.files.map((file) => ({
      name: `${entry.name} ${file}`,
      run: async () => {
        base ??= createSdxlPipeline({ path: model, backend });
        const pipeline = await (await base).withLoras([{ path: join(folder, file), weight: entry.scale }]);
        try {
          return await loraCase(`${entry.name} ${file}`, entry, inputs, pipeline, expected);
        } finally {
          await pipeline.dispose();
        }
      },
    })),
  );
}

interface Surroundings {
  readonly folder: string;
  /** The base, rebuilt. */
  readonly model: string;
  readonly inputs: UNetCases;
  readonly expected: Expected;
  readonly backend: Backend;
  /** Takes what is to be run at the end. */
  readonly finish: (() => Promise<void>)[];
}

async function loraCase(
  name: string,
  { prompt, timestep, key }: LoraCase,
  inputs: UNetCases,
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  const { embeds, pooled } = await pipeline.networks.prompts.encode(prompt, 'diffusers');
  const noise = await predictedNoise(inputs, timestep, pipeline);
  return judge(name, [
    { what: 'embeds', actual: embeds, expected: expected.get(`${key}.embeds`), tolerance: 'network' },
    { what: 'pooled', actual: pooled, expected: expected.get(`${key}.pooled`), tolerance: 'network' },
    { what: 'noise', actual: noise, expected: expected.get(`${key}.unet`), tolerance: 'network' },
  ]);
}
