import type { Logger } from '../../log.js';
import type { Enhanced, PromptEnhancer } from './prompt-enhancer.js';

/** What became of the prompt of a job that was to be enhanced. */
export type EnhancementOutcome =
  | ({ readonly strategy: 'qwen' } & Enhanced)
  /** The prompt is used as it was sent, and why. */
  | { readonly strategy: 'fallback'; readonly problem: string };

export interface EnhancementOptions {
  /** undefined: the server has no language model. */
  readonly enhancer: PromptEnhancer | undefined;
  readonly defaults: EnhanceDefaults;
  /** From the job's acceptance, loading and waiting counted, in milliseconds. */
  readonly timeoutMs: number;
  readonly log: Logger;
}

/** Settings of the template. */
export interface EnhanceDefaults {
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  /** Omitted: drawn; of a job, its own. */
  readonly seed?: number;
}
