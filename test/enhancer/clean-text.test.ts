import { describe, expect, it } from 'vitest';
import { cleanEnhancement } from '../../src/enhancer/clean-text.js';

const LAKE = 'A wooden boat drifts on a still lake. Soft golden light from the left, low wide shot.';

describe('cleanEnhancement', () => {
  it.each([
    ['leaves a paragraph as it is', LAKE, LAKE],
    ['takes off quotation marks around it', `"${LAKE}"`, LAKE],
    ['takes off curly ones', `“${LAKE}”`, LAKE],
    ['takes off one that was never closed', `"${LAKE}`, LAKE],
    ['keeps marks inside', 'A sign that says "open" by a door.', 'A sign that says "open" by a door.'],
    ['keeps marks at both ends that are two pairs', '"Open" and "closed"', '"Open" and "closed"'],
    ['takes off a label', `Enhanced prompt: ${LAKE}`, LAKE],
    ['takes off a label in bold', `**Detailed, cinematic description:** ${LAKE}`, LAKE],
    ['takes off a courtesy', `Sure! Here is a cinematic description of your idea:\n\n${LAKE}`, LAKE],
    ['takes off a courtesy, a label and marks', `Certainly! Here's the enhanced version:\n\nPrompt: "${LAKE}"`, LAKE],
    ['makes one paragraph of several', 'A boat.\n\nA lake.\r\n\tDawn.', 'A boat. A lake. Dawn.'],
    ['makes one paragraph of a list', '- A boat.\n- A lake.\n1. Dawn.', 'A boat. A lake. Dawn.'],
    ['takes off emphasis', 'A **wooden** boat, __still__ water.', 'A wooden boat, still water.'],
    ['takes off control tokens that were written out', `${LAKE}<|im_end|>`, LAKE],
    ['takes off half a character at the end', 'A boat \uFFFD', 'A boat'],
    ['keeps words that only look like a label', 'Prompt, golden light: a boat.', 'Prompt, golden light: a boat.'],
    ['keeps a sentence that begins with "Here"', 'Here the river bends.', 'Here the river bends.'],
    ['keeps a word that begins like a courtesy', 'Surely the tide turns.', 'Surely the tide turns.'],
    ['gives nothing for nothing', ' \n "" ', ''],
  ])('%s', (_, written, cleaned) => {
    expect(cleanEnhancement(written, true)).toBe(cleaned);
  });

  it.each([
    ['cuts off a half sentence', `${LAKE} Behind it the`, LAKE],
    ['sees a decimal point as no end', 'A boat at 3.5 metres', 'A boat at 3.5 metres'],
    ['keeps the marks that close a sentence', 'A sign says "open." And beside', 'A sign says "open."'],
    ['knows the full stop of Chinese', '一艘木船。远处的山 ', '一艘木船。远处的山'],
    ['keeps the only sentence there is, whole or not', 'A boat on a lake at', 'A boat on a lake at'],
  ])('where the text was ended by its length, %s', (_, written, cleaned) => {
    expect(cleanEnhancement(written, false)).toBe(cleaned);
  });
});
