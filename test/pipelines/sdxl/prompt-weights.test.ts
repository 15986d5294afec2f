import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { PromptSyntaxError } from '../../../src/pipelines/sdxl/prompt/prompt-syntax-error.js';
import { parsePrompt } from '../../../src/pipelines/sdxl/prompt/prompt-weights.js';

const goldens = fileURLToPath(new URL('../../fixtures/goldens/sdxl-tiny/compel_cases.json', import.meta.url));

/** Fragments as `text` or `text @weight`, in order. */
function fragments(prompt: string): string[][] {
  return parsePrompt(prompt).prompts.map((each) =>
    each.map(({ text, weight }) => (weight === 1 ? text : `${text} @${Number(weight.toFixed(6))}`)),
  );
}

function problem(prompt: string): string {
  try {
    parsePrompt(prompt);
  } catch (error) {
    if (error instanceof PromptSyntaxError) return error.message;
    throw error;
  }
  return 'no problem';
}

describe('parsePrompt', () => {
  // compel 2.4: [(f.text, f.weight) for f in PromptParser().parse_conjunction(prompt).prompts[0].children],
  // each `(text:number)` written `(text)number`.
  it.each([
    ['a red circle', ['a red circle']],
    ['', ['']],
    ['  a  red\n circle ', ['a red circle']],
    ['(red)1.3', ['red @1.3']],
    ['(red:1.3)', ['red @1.3']],
    ['( red : 1.3 )', ['red @1.3']],
    ['(red)2', ['red @2']],
    ['(red).7', ['red @0.7']],
    ['(red)2. Next', ['red @2', 'Next']],
    ['(red)0.7. Next', ['red @0.7', '. Next']],
    [
      'a red circle (masterpiece:1.3), (best quality:1.2)',
      ['a red circle', 'masterpiece @1.3', ',', 'best quality @1.2'],
    ],
    ['a red++ circle and a blue-- square', ['a', 'red @1.21', 'circle and a', 'blue @0.81', 'square']],
    ['(a b)++ (a b)-', ['a b @1.21', 'a b @0.9']],
    ['"red car"++ "blue car"0.5', ['red car @1.21', 'blue car @0.5']],
    ['a (small (red:1.2) circle:1.1)', ['a', 'small @1.1', 'red @1.32', 'circle @1.1']],
    ['(a (b+ c)++)0.5', ['a @0.5', 'b @0.6655', 'c @0.605']],
    ['red.attend(0.5) (a b).attend(++)', ['red @0.5', 'a b @1.21']],
    // Equal neighbours are one fragment: they are lowered together.
    ['(a b)0.5 (c d:0.5)', ['a b c d @0.5']],
    ['(a b)0.5, (c d:0.5)', ['a b @0.5', ',', 'c d @0.5']],
    // No sign, no weight.
    ['fire (flames) ((high))', ['fire flames high']],
    ['say "hi there"', ['say hi there']],
    ['12" disc, a 7" disc', ['12" disc, a 7" disc']],
    ['a "red', ['a "red']],
    ['well-lit night-time - photo -- x +y', ['well-lit night-time - photo -- x +y']],
    ['well-lit+ well--known', ['well-lit @1.1', 'well @0.81', 'known']],
    ['v1.5++ x,y++', ['v1.5++ x,', 'y @1.21']],
    ['(well-lit, f/1.8...)1.2', ['well-lit , f/1 . 8 . . . @1.2']],
    ['a,b z,,,q', ['a, b z, ,, q']],
    ['(a):1.3', ['a :1.3']],
    ['(a)1girl', ['a girl']],
    ['(a:1.3 b)1.1', ['a:1 . 3 b @1.1']],
    ['\\(man\\) (\\(x\\))1.1 \\"y\\"', ['(man)', '(x) @1.1', '"y"']],
    ["café++ 日本++ it's--", ['café 日本 @1.21', "it's @0.81"]],
  ])('reads %j as compel does', (prompt, expected) => {
    expect(fragments(prompt)).toEqual([expected]);
  });

  // compel gives such a phrase up and takes its signs and numbers for text.
  it.each([
    ['a (b - c:1.2) d', ['a', 'b - c @1.2', 'd']],
    ['(f=1.8)1.2', ['f = 1 . 8 @1.2']],
    ['red(blue)1.2', ['red', 'blue @1.2']],
    ['C\\+\\+', ['C++']],
    ['(ratio 16\\:9) (ratio 16\\:9:1.2)', ['ratio 16:9', 'ratio 16:9 @1.2']],
    ['(photo: studio)', ['photo : studio']],
    ['(a 12" disc:1.2)', ['a 12 " disc @1.2']],
  ])('reads %j on', (prompt, expected) => {
    expect(fragments(prompt)).toEqual([expected]);
  });

  it.each([
    ['("a red circle", "a (b)1.3").and()', 'and', [['a red circle'], ['a', 'b @1.3']], [1, 1]],
    ['("a","b") .and ( 1 , 0.5 ) ', 'and', [['a'], ['b']], [1, 0.5]],
    ['("a", "b").add()', 'and', [['a'], ['b']], [1, 1]],
    ['("a (b:1.3)", "").blend(3, 1)', 'blend', [['a', 'b @1.3'], ['']], [0.75, 0.25]],
    ['("a", "b").blend(0.7, -0.3, no_normalize)', 'blend', [['a'], ['b']], [0.7, -0.3]],
    ['(mountain, (tall man)).blend()', 'blend', [['mountain'], ['tall man']], [0.5, 0.5]],
    ['("say \\"hi\\"", "b...").and()', 'and', [['say "hi"'], ['b . . .']], [1, 1]],
  ])('reads %s', (prompt, kind, expected, weights) => {
    const parsed = parsePrompt(prompt);
    expect([parsed.kind, fragments(prompt), parsed.weights]).toEqual([kind, expected, weights]);
  });

  // As compel 2.4 reads them.
  it.each<[string, [string, number][]]>([
    [':)', [[':)', 1]]],
    ['1) a cat', [['1) a cat', 1]]],
    [
      '(cat)1.2)',
      [
        ['cat', 1.2],
        [')', 1],
      ],
    ],
    [
      '(red cat)1.3 :) on a mat',
      [
        ['red cat', 1.3],
        [':) on a mat', 1],
      ],
    ],
    [
      '1) (cat)1.3, 2) dog++',
      [
        ['1)', 1],
        ['cat', 1.3],
        [', 2)', 1],
        ['dog', 1.21],
      ],
    ],
    [
      ':-) (cat)1.2',
      [
        [':', 0.9],
        [')', 1],
        ['cat', 1.2],
      ],
    ],
    [
      '(a (b)1.2) c)',
      [
        ['a', 1],
        ['b', 1.2],
        ['c)', 1],
      ],
    ],
    [
      'x ) y (z)1.2',
      [
        ['x ) y', 1],
        ['z', 1.2],
      ],
    ],
    [
      '(cat)1.2)1.3)',
      [
        ['cat', 1.2],
        [')1.3)', 1],
      ],
    ],
  ])('keeps a parenthesis that closes nothing as text, and every weight: %j', (prompt, expected) => {
    const read = parsePrompt(prompt).prompts.flat();
    expect(read.map(({ text, weight }) => [text, Number(weight.toFixed(6))])).toEqual(expected);
  });

  it.each([
    ['a red circle', false],
    ['a (red) "circle" - or so', false],
    ['(red:1)', true],
    ['red+', true],
    ['("a").and()', true],
  ])('knows whether %j has a weight', (prompt, weighted) => {
    expect(parsePrompt(prompt).weighted).toBe(weighted);
  });

  it.each([
    ['(red:1.3', 'character 1: "(" is never closed; close it, or write \\( for the sign itself'],
    ['a "b (c" d)', 'character 6: "(" is not closed before the quotes end; close it, or write \\( for the sign itself'],
    ['a "b c) d"', 'character 7: ")" closes nothing within the quotes; remove it, or write \\) for the sign itself'],
    ['(red:high)', 'character 6: the weight "high" is not a number, such as 1.2; where the ":" is text, write \\:'],
    ['(red:)', 'character 6: the weight "" is not a number, such as 1.2; where the ":" is text, write \\:'],
    ['(red:1,3)', 'character 6: the weight "1,3" is not a number, such as 1.2; where the ":" is text, write \\:'],
    ['a (red)1.2.3', 'character 8: the weight "1.2.3" is not a number, such as 1.2'],
    ['(red)-0.5', 'character 6: the weight "-0.5" has a sign; write 0 to 10'],
    ['(red:-1)', 'character 6: the weight -1 must be 0 to 10; where the ":" is text, write \\:'],
    ['(red:1.3)++', 'character 1: the phrase has two weights; leave one'],
    ['((red)5)3', 'character 3: the weights of "red" multiply to 15.0, must be <= 10'],
    [`red${'+'.repeat(9000)}`, 'character 1: the weights of "red" multiply to Infinity, must be <= 10'],
    [`(red${'+'.repeat(9000)})0`, 'character 2: the weights of "red" multiply to NaN, must be <= 10'],
    [
      'a cat.swap(dog)',
      'character 6: .swap() is not supported here; remove it, or write \\( for the parenthesis itself',
    ],
    [
      'withLora(x)',
      'character 1: withLora() is not supported here; remove it, or write \\( for the parenthesis itself',
    ],
    ['a red.attend(x)', 'character 6: .attend() must follow a word or a phrase, and have a number, + or - in it'],
    ['("a", "b").and() c', 'character 11: .and() must stand around the whole prompt: ("one", "another").and()'],
    ['c ("a", "b").and()', 'character 1: .and() must stand around the whole prompt: ("one", "another").and()'],
    ['(c) ("a", "b").and()', 'character 3: .and() must stand around the whole prompt: ("one", "another").and()'],
    [
      '(a red circle, "b").blend()',
      'character 2: .blend() takes prompts in double quotes with commas between: ("one", "another").blend()',
    ],
    ['("a", "b").blend(1)', 'character 18: .blend() has 2 prompts and 1 weights; give each a weight, or none'],
    ['("a", "b").blend(1, x)', 'character 18: the weight "x" of .blend() must be a number from -10 to 10'],
    ['("a", "b").and(1, -1)', 'character 16: the weight "-1" of .and() must be a number from 0 to 10'],
    ['("a", "b").blend(1, -1)', 'character 18: the weights of .blend() add up to 0; choose others'],
    ['("a (b", "c").and()', 'character 5: "(" is never closed; close it, or write \\( for the sign itself'],
  ])('says of %j where it is wrong and what to do', (prompt, message) => {
    expect(problem(prompt)).toBe(message);
  });

  it.each([
    ['a weight', (n: number) => `(red:${n})`, 10, 10.01],
    ['depth', (n: number) => '('.repeat(n) + ')'.repeat(n), 32, 33],
    ['phrases below 1', (n: number) => 'a- b '.repeat(n), 100, 101],
    ['those of all prompts', (n: number) => `("${'a- b '.repeat(50)}", "${'a- b '.repeat(n - 50)}").and()`, 100, 101],
    ['prompts of an operator', (n: number) => `(${new Array(n).fill('"a"').join()}).and()`, 32, 33],
  ])('takes %s up to its bound', (_, make, most, more) => {
    expect(problem(make(most))).toBe('no problem');
    expect(problem(make(more))).toMatch(/^character \d+: .*(10|32|100)\b/);
  });

  it('spells prompts like compel for the pooled vector', async () => {
    const { cases } = JSON.parse(await readFile(goldens, 'utf8')) as {
      cases: { prompt: string; compel_syntax: string }[];
    };
    const texts = cases.filter(({ prompt }) => !prompt.includes('.blend('));
    expect(texts).toHaveLength(10);
    for (const { prompt, compel_syntax } of texts) {
      expect(parsePrompt(prompt).pooled).toEqual([{ text: compel_syntax, weight: 1 }]);
    }
    // Of a blend, each prompt by itself.
    expect(parsePrompt('("a (b:1.3)", "c").blend(0.7, 0.3)').pooled).toEqual([
      { text: 'a (b)1.3', weight: 0.7 },
      { text: 'c', weight: 0.3 },
    ]);
  });

  it('reads the examples of the documentation as documented', async () => {
    const page = await readFile(new URL('../../../docs/reference/prompt-weights.md', import.meta.url), 'utf8');
    const [, table = ''] = page.split(/^\| prompt +\| becomes +\|$/m);
    const rows = [...table.matchAll(/^\| `(.*)` +\| (`.*?) +\|$/gm)].slice(0, 6);
    expect(rows).toHaveLength(6);
    for (const [, prompt = '', becomes] of rows) {
      const parts = parsePrompt(prompt).prompts.flat();
      const shown = parts.map(
        ({ text, weight }) => `\`${text}\`${weight === 1 ? '' : ` ${Number(weight.toFixed(6))}`}`,
      );
      expect(shown.join(', ')).toBe(becomes);
    }
  });

  // A quarter of a megabyte takes some 0.1 s; were any of it read twice over, minutes.
  it.each([
    '(',
    ')',
    '()',
    '((((a:1',
    '"',
    '"a" ',
    '"a\n',
    '\\',
    '\\"',
    ':',
    ': ',
    '(: ',
    ',',
    '.',
    '+',
    'a+',
    'a- b ',
    '(a)1.',
    '("a",',
    'x.attend( ',
    ' ',
  ])('reads any number of %j in linear time', { timeout: 20_000 }, (unit) => {
    const many = unit.repeat(262_144 / unit.length);
    for (const prompt of [many, `(a: ${many})`, `("a", ${many}).and()`, `(a${many}`]) problem(prompt);
  });
});
