import { InferenceError } from '../../errors.js';
import { cleanPrompt } from '../../pipelines/wan/prompt/clean-prompt.js';
import * as rule from '../../policy/sexualises-minors.js';

export function assertPolicy(text: string, what = 'the prompt'): void {
  if (!sexualisesMinors(text)) return;
  throw new InferenceError('POLICY', `${what} is refused: sexual content involving minors is never generated`);
}

export function sexualisesMinors(text: string): boolean {
  return rule.sexualisesMinors({ positive: [...new Set([text, cleanPrompt(text)])] }) !== undefined;
}
