import { cleanPrompt } from '../../src/pipelines/wan/prompt/clean-prompt.js';
import type { PromptCache } from '../../src/pipelines/wan/prompt/prompt-cache.js';
import { type FlowScheduleCase, flowScheduleCases } from './flow-schedule-cases.js';
import type { Expected } from './golden-folder.js';
import { type Case, type CaseResult, judge } from './report.js';

export interface PromptCase {
  readonly text: string;
  readonly cleaned: string;
  readonly ids: readonly number[];
  /** Of the first 64 positions; those after the last token are zeros. */
  readonly key: string;
}

/** What `cases.json` of a WAN folder holds beside its transformer, VAE and clips. */
export interface WanTextCases {
  readonly prompts?: readonly PromptCase[];
  readonly schedulers?: readonly FlowScheduleCase[];
}

/** Kinds of cases that these functions know. */
export const wanTextKinds = ['prompts', 'schedulers'] as const;

/** @param encoder of the layout that `outputs` are of */
export function wanTextCases(
  { prompts = [], schedulers = [] }: WanTextCases,
  outputs: Expected,
  encoder: PromptCache,
): readonly Case[] {
  return [
    ...prompts.map((entry) => ({ name: entry.key, run: () => promptCase(entry, outputs, encoder) })),
    ...flowScheduleCases(schedulers, outputs),
  ];
}

async function promptCase(
  { text, cleaned, ids, key }: PromptCase,
  expected: Expected,
  encoder: PromptCache,
): Promise<CaseResult> {
  const characters = (value: string) => Array.from(value, (character) => character.codePointAt(0) ?? 0);
  const encoded = await encoder.encode(text);
  const wanted = expected.get(key);
  const states = new Float32Array(wanted.length);
  states.set(encoded.states.subarray(0, wanted.length));
  return judge(key, [
    { what: 'text', actual: characters(cleanPrompt(text)), expected: characters(cleaned), tolerance: 'exact' },
    { what: 'ids', actual: encoded.ids, expected: ids, tolerance: 'exact' },
    { what: 'states', actual: states, expected: wanted, tolerance: 'network' },
  ]);
}
