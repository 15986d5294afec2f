import type { SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import type { Expected } from './golden-folder.js';
import { type Case, judge } from './report.js';
import { type TextToImageCase, txt2imgCase } from './sdxl-cases.js';

/** `case.json` beside the manifest of one file: a prompt and its picture. Its outputs are called by their kind alone. */
export interface SingleCase extends Omit<TextToImageCase, 'key' | 'seeds'> {
  readonly seed: number;
}

export function isSingleCase(content: unknown): content is SingleCase {
  return typeof content === 'object' && content !== null && 'prompt' in content && 'seed' in content && 'w' in content;
}

export function singleFileCases(entry: SingleCase, pipeline: SdxlPipeline, expected: Expected): readonly Case[] {
  return [
    {
      name: 'prompt',
      run: async () => {
        const { embeds, pooled } = await pipeline.networks.prompts.encode(entry.prompt, 'diffusers');
        return judge('prompt', [
          { what: 'embeds', actual: embeds, expected: expected.get('embeds'), tolerance: 'network' },
          { what: 'pooled', actual: pooled, expected: expected.get('pooled'), tolerance: 'network' },
        ]);
      },
    },
    {
      name: 'txt2img',
      run: () => txt2imgCase({ ...entry, key: '', seeds: [entry.seed] }, pipeline, expected, 'txt2img'),
    },
  ];
}
