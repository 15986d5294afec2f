import type { LlamaModel } from './llama.js';
import { type EnhanceTemplate, PLACE } from './template.js';

/** The contract's bound; longer prompts are cut. */
export const MAX_PROMPT_TOKENS = 1024;

/** A prompt as tokens. */
export interface PromptTokens {
  readonly tokens: readonly number[];
  /** Tokens of the prompt alone. */
  readonly promptTokens: number;
  /** Number of tokens that were cut. */
  readonly droppedTokens: number;
}

/**
 * A template as tokens around those of the prompt. Control tokens in the template are control tokens; in the prompt
 * they are text, so that a prompt cannot end its turn.
 */
export class PromptFrame {
  readonly #model: LlamaModel;
  /** Tokens at the start of every prompt, worth keeping evaluated. */
  readonly prefix: readonly number[];
  readonly #suffix: readonly number[];
  /**
   * Text before the prompt. It is tokenized together with it: "Idea: a boat" has the token " a", "Idea: " and "a boat"
   * have not.
   */
  readonly #gap: string;

  /** @param isChat true for models with turns (ChatML, as Qwen's instruct models) */
  constructor(model: LlamaModel, template: EnhanceTemplate, isChat: boolean) {
    this.#model = model;
    const [before = '', after = ''] = (isChat ? chatOf(template) : template.plain).split(PLACE);
    const trimmed = before.replace(/ +$/, '');
    this.#gap = before.slice(trimmed.length);
    this.prefix = model.tokenize(trimmed, true);
    this.#suffix = model.tokenize(isChat ? after : after.replace(/ +$/, ''), true);
  }

  /** Number of tokens of the template itself. */
  get length(): number {
    return this.prefix.length + this.#suffix.length;
  }

  /** @param prompt brought to NFC as transformers does, because Qwen's vocabulary has composed characters */
  around(prompt: string, maxTokens = MAX_PROMPT_TOKENS): PromptTokens {
    const tokens = this.#model.tokenize(`${this.#gap}${prompt.normalize('NFC').trim()}`, false);
    const kept = tokens.slice(0, maxTokens);
    return {
      tokens: [...this.prefix, ...kept, ...this.#suffix],
      promptTokens: tokens.length,
      droppedTokens: tokens.length - kept.length,
    };
  }
}

/** ChatML, as in the chat templates of Qwen2's and Qwen2.5's tokenizers. */
function chatOf({ system, user }: EnhanceTemplate): string {
  const turn = (role: string, text: string) => `<|im_start|>${role}\n${text}<|im_end|>\n`;
  return `${system === '' ? '' : turn('system', system)}${turn('user', user)}<|im_start|>assistant\n`;
}
