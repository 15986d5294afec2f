import type { Logger } from '../../log.js';
import type { Enhanced, PromptEnhancer } from './prompt-enhancer.js';

/** Result of enhancing the prompt of a job. */
export type EnhancementOutcome =
  | ({ readonly strategy: 'qwen' } & Enhanced)
  /** The original prompt is used; `problem` is the reason. */
  | { readonly strategy: 'fallback'; readonly problem: string };

export interface EnhancementOptions {
  /** Undefined: the server has no language model. */
  readonly enhancer: PromptEnhancer | undefined;
  readonly defaults: EnhanceDefaults;
  /** Time limit in ms from the job's acceptance; loading and waiting count. */
  readonly timeoutMs: number;
  readonly log: Logger;
}

/** Sampling settings of the template. */
export interface EnhanceDefaults {
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  /** Omitted: a random one; for a job, the job's seed. */
  readonly seed?: number;
}
