import { fixText } from './fix-text.js';
import { unescapeHtml } from './unescape-html.js';

/**
 * A prompt as WAN's own code cleans it before it is tokenized: ftfy's repairs, character references resolved twice, white space
 * to single spaces. What of ftfy is not done stands in fix-text.ts.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/modules/tokenizers.py#L12
 */
export function cleanPrompt(text: string): string {
  return unescapeHtml(unescapeHtml(fixText(text)))
    .replace(/\p{White_Space}+/gu, ' ')
    .replace(/^ | $/g, '');
}
