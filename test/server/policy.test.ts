import { describe, expect, it } from 'vitest';
import { assertPolicy, sexualisesMinors } from '../support/policy.js';

// The rule over words is tested with the plainest pairs there are.
describe('the policy', () => {
  it.each([
    'an explicit child',
    'explicit, CHILD',
    'e x p l i c i t   c h i l d',
    'e.x.p.l.i.c.i.t child',
    'expl\u200bicit chi\u00adld',
    '3xplicit ch1ld',
    'éxplicit chíld',
    'a lewd teenager',
    'suggestive schoolgirl',
    'a provocative 15 year old',
    'a provocative 9yo',
    'a provocative person, aged 12',
    'a provocative fourteen year old',
    'explicit (child:1.3)',
    'an explicit girl',
  ])('refuses "%s"', (prompt) => {
    expect(sexualisesMinors(prompt)).toBe(true);
  });

  it.each([
    'children playing in a park',
    'a girl in a red dress',
    'a boy and his dog',
    'a sexy sports car',
    'a baby elephant',
    'a seductive woman in a baby blue dress',
    'a portrait of a 35 year old sailor, suggestive lighting',
    'a naked mole rat in its burrow',
    'a family at the beach, golden hour',
    'explicit brush strokes, minor details in the corners',
    'a lighthouse at 4 in the morning, 17 boats',
    '',
  ])('lets "%s" pass', (prompt) => {
    expect(() => assertPolicy(prompt)).not.toThrow();
  });

  it('says so in one sentence, under its own reason', () => {
    expect(() => assertPolicy('an explicit child')).toThrow(
      expect.objectContaining({
        reason: 'POLICY',
        message: 'the prompt is refused: sexual content involving minors is never generated',
      }),
    );
  });
});
