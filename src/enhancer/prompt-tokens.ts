import type { LlamaModel } from './llama.js';
import { type EnhanceTemplate, PLACE } from './template.js';

/** The contract's bound: what is longer is cut. */
export const MAX_PROMPT_TOKENS = 1024;

/** A prompt as the model reads it. */
export interface PromptTokens {
  readonly tokens: readonly number[];
  /** Of the prompt alone. */
  readonly promptTokens: number;
  /** Of those, cut off. */
  readonly droppedTokens: number;
}

/**
 * A template as tokens around the prompt's. The template's signs are control tokens where they name one; the prompt's never are: it
 * cannot end its own turn.
 */
export class PromptFrame {
  readonly #model: LlamaModel;
  /** What every prompt begins with: worth keeping evaluated. */
  readonly prefix: readonly number[];
  readonly #suffix: readonly number[];
  /** Goes before the prompt: "Idea: a boat" has the token " a", "Idea: " and "a boat" have not. */
  readonly #gap: string;

  /** @param isChat whether the model takes turns (ChatML, as Qwen's instruct models do) */
  constructor(model: LlamaModel, template: EnhanceTemplate, isChat: boolean) {
    this.#model = model;
    const [before = '', after = ''] = (isChat ? chatOf(template) : template.plain).split(PLACE);
    const trimmed = before.replace(/ +$/, '');
    this.#gap = before.slice(trimmed.length);
    this.prefix = model.tokenize(trimmed, true);
    this.#suffix = model.tokenize(isChat ? after : after.replace(/ +$/, ''), true);
  }

  /** Tokens that the template itself takes. */
  get length(): number {
    return this.prefix.length + this.#suffix.length;
  }

  /** @param prompt Qwen's vocabulary is of composed characters: it is brought to NFC, as transformers does */
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

/** ChatML, as the chat templates of Qwen2's and Qwen2.5's tokenizers write it. */
function chatOf({ system, user }: EnhanceTemplate): string {
  const turn = (role: string, text: string) => `<|im_start|>${role}\n${text}<|im_end|>\n`;
  return `${system === '' ? '' : turn('system', system)}${turn('user', user)}<|im_start|>assistant\n`;
}
