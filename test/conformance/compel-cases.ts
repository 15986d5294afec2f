import type { PromptEncoder } from '../../src/pipelines/sdxl/prompt/prompt-encoder.js';
import type { Expected } from './golden-folder.js';
import { type Case, type CaseResult, judge } from './report.js';

interface CompelCase {
  /** As a caller sends it. */
  readonly prompt: string;
  readonly negative: string | null;
  readonly key: string;
}

export interface CompelCases {
  readonly cases: readonly CompelCase[];
}

export function isCompelCases(content: unknown): content is CompelCases {
  if (typeof content !== 'object' || content === null || !('cases' in content) || !Array.isArray(content.cases)) {
    return false;
  }
  return content.cases.every((entry) => 'prompt' in entry && 'compel_syntax' in entry && 'key' in entry);
}

/** Weighted prompts as compel encodes them for SDXL, the negative one padded to the same length. */
export function compelCases({ cases }: CompelCases, expected: Expected, encoder: PromptEncoder): readonly Case[] {
  return cases.map((entry) => ({ name: `compel.${entry.key}`, run: () => compelCase(entry, expected, encoder) }));
}

async function compelCase(
  { prompt, negative, key }: CompelCase,
  expected: Expected,
  encoder: PromptEncoder,
): Promise<CaseResult> {
  const embeds = [await encoder.encode(prompt, 'weighted')];
  if (negative !== null) embeds.push(await encoder.encode(negative, 'weighted'));
  const encoded = await encoder.padToSameLength(embeds);
  return judge(
    `compel.${key}`,
    encoded.flatMap(({ embeds, pooled }, i) => {
      const prefix = i === 0 ? '' : 'neg_';
      return [
        {
          what: `${prefix}embeds`,
          actual: embeds,
          expected: expected.get(`${key}.${prefix}embeds`),
          tolerance: 'network' as const,
        },
        {
          what: `${prefix}pooled`,
          actual: pooled,
          expected: expected.get(`${key}.${prefix}pooled`),
          tolerance: 'network' as const,
        },
      ];
    }),
  );
}
