import { type Edit, type Fragment, MAX_WEIGHT, readFragments } from './prompt-fragments.js';
import { ITEM, SEPARATOR, short } from './prompt-signs.js';
import { PromptSyntaxError } from './prompt-syntax-error.js';

/** A prompt taken apart. Most are one text; `.and()` and `.blend()` have several. */
export interface ParsedPrompt {
  /** `and`: their embeddings one after the other. `blend`: the sum of their embeddings, weighted. */
  readonly kind: 'text' | 'and' | 'blend';
  readonly prompts: readonly (readonly Fragment[])[];
  /** One weight a prompt. The weights of a blend add up to 1, unless it has `no_normalize`. */
  readonly weights: readonly number[];
  /** Something in it has a weight or is an operator, even one that changes nothing. */
  readonly weighted: boolean;
  /**
   * Texts of the pooled vector in compel's spelling, `(phrase)1.3` for `(phrase:1.3)`: the prompt as it is written, with all signs.
   * A blend has one for each prompt, with its weight.
   */
  readonly pooled: readonly Fragment[];
}

/** Each prompt of an operator costs runs of both text encoders. */
const MAX_PROMPTS = 32;
/** Each phrase below 1 is another run of both text encoders. */
const MAX_LOWERED = 100;
/** Blend weights whose sum is closer to 0 blow the embeddings up when they are divided by it. */
const MIN_WEIGHT_SUM = 1e-3;

/**
 * Reads the weights of a prompt, in linear time.
 *
 * The grammar is in docs/reference/prompt-weights.md; that of compel is at
 * https://github.com/damian0815/compel/blob/main/src/compel/prompt_parser.py#L441
 *
 * @throws PromptSyntaxError that names the place and the remedy
 */
export function parsePrompt(prompt: string): ParsedPrompt {
  const call = findCall(prompt);
  const parsed = call === undefined ? parseText(prompt) : parseCall(prompt, call);
  if (parsed.prompts.flat().filter(({ weight }) => weight < 1).length > MAX_LOWERED) {
    fail(0, `a prompt may have ${MAX_LOWERED} phrases with a weight below 1; take some out`);
  }
  return parsed;
}

function parseText(prompt: string): ParsedPrompt {
  const { fragments, weighted, edits } = readFragments(prompt, 0, prompt.length, false);
  const pooled = [{ text: edited(prompt, edits, 0, prompt.length), weight: 1 }];
  return { kind: 'text', prompts: [fragments], weights: [1], weighted, pooled };
}

/** Text that is one fragment, signs and all. */
export function plainPrompt(prompt: string): ParsedPrompt {
  const fragments = [{ text: prompt, weight: 1 }];
  return { kind: 'text', prompts: [fragments], weights: [1], weighted: false, pooled: fragments };
}

/** `( … ).and( … )` around the whole prompt. */
interface Call {
  readonly kind: 'and' | 'blend';
  /** Index of the list's opening parenthesis. */
  readonly list: number;
  /** Index of its closing parenthesis. */
  readonly listEnd: number;
  /** Index of the first argument. */
  readonly options: number;
  readonly optionsEnd: number;
}

/** Looked for from the end: nothing else ends so, and a prompt that does is meant to be one. */
function findCall(prompt: string): Call | undefined {
  const end = prompt.trimEnd().length;
  if (prompt[end - 1] !== ')') return undefined;
  const open = prompt.lastIndexOf('(');
  const head = prompt.slice(0, Math.max(0, open)).trimEnd();
  const name = ['.and', '.add', '.blend'].find((operator) => head.endsWith(operator));
  if (name === undefined) return undefined;
  const list = head.slice(0, -name.length).trimEnd();
  if (!list.endsWith(')')) return undefined;
  return {
    kind: name === '.blend' ? 'blend' : 'and',
    list: prompt.search(/\S/),
    listEnd: list.length - 1,
    options: open + 1,
    optionsEnd: end - 1,
  };
}

function parseCall(prompt: string, call: Call): ParsedPrompt {
  const items = listItems(prompt, call);
  const read = items.map(([from, to]) => readFragments(prompt, from, to, true));
  const { weights, normalize } = readOptions(prompt, call, items.length);
  const sum = normalize ? weights.reduce((total, weight) => total + weight, 0) : 1;
  if (Math.abs(sum) < MIN_WEIGHT_SUM) fail(call.options, `the weights of .blend() add up to ${sum}; choose others`);
  const shares = weights.map((weight) => weight / sum);
  const edits = read.flatMap((item) => item.edits);
  const spelled = (from: number, to: number, weight: number) => ({ text: edited(prompt, edits, from, to), weight });
  return {
    kind: call.kind,
    prompts: read.map(({ fragments }) => fragments),
    weights: shares,
    weighted: true,
    pooled:
      call.kind === 'blend'
        ? items.map(([from, to], i) => spelled(from, to, shares[i] ?? 0))
        : [spelled(0, prompt.length, 1)],
  };
}

/** Begin and end of each prompt of the list, without its quotes. */
function listItems(prompt: string, { kind, list, listEnd }: Call): (readonly [number, number])[] {
  if (prompt[list] !== '(') fail(list, `.${kind}() must stand around the whole prompt: ("one", "another").${kind}()`);
  const items: (readonly [number, number])[] = [];
  let at = list + 1 + spaces(prompt, list + 1);
  for (;;) {
    ITEM.lastIndex = at;
    const [all] = ITEM.exec(prompt) ?? [];
    const end = all === '(' ? closingParenthesis(prompt, at, listEnd) : at + (all?.length ?? 0);
    SEPARATOR.lastIndex = end;
    const [gap = '', separator] = SEPARATOR.exec(prompt) ?? [];
    if (all === undefined || separator === undefined || end > listEnd) {
      fail(at, `.${kind}() takes prompts in double quotes with commas between: ("one", "another").${kind}()`);
    }
    items.push(all.startsWith('"') ? [at + 1, end - 1] : [at, end]);
    if (items.length > MAX_PROMPTS) fail(at, `.${kind}() takes ${MAX_PROMPTS} prompts at most`);
    const closing = end + gap.trimEnd().length - 1;
    at = end + gap.length;
    if (separator === ',') continue;
    if (closing === listEnd) return items;
    fail(closing, `.${kind}() must stand around the whole prompt: ("one", "another").${kind}()`);
  }
}

function readOptions(
  prompt: string,
  { kind, options, optionsEnd }: Call,
  prompts: number,
): { weights: number[]; normalize: boolean } {
  const words = prompt
    .slice(options, optionsEnd)
    .split(',')
    .map((word) => word.trim());
  const normalize = kind === 'blend' && words.at(-1) !== 'no_normalize';
  if (kind === 'blend' && !normalize) words.pop();
  if (words.length === 0 || words.join('') === '') return { weights: new Array<number>(prompts).fill(1), normalize };
  if (words.length !== prompts) {
    fail(options, `.${kind}() has ${prompts} prompts and ${words.length} weights; give each a weight, or none`);
  }
  // A blend may subtract one prompt from another, as in compel.
  const lowest = kind === 'blend' ? -MAX_WEIGHT : 0;
  const weights = words.map((word) => {
    const weight = /^-?(?:\d+\.?\d*|\.\d+)$/.test(word) ? Number(word) : Number.NaN;
    if (weight >= lowest && weight <= MAX_WEIGHT) return weight;
    return fail(options, `the weight "${short(word)}" of .${kind}() must be a number from ${lowest} to ${MAX_WEIGHT}`);
  });
  return { weights, normalize };
}

function closingParenthesis(prompt: string, from: number, limit: number): number {
  let depth = 0;
  for (let i = from; i < limit; i += 1) {
    const char = prompt[i];
    if (char === '\\') i += 1;
    if (char === '(') depth += 1;
    if (char === ')') depth -= 1;
    if (depth === 0) return i + 1;
  }
  return fail(from, '"(" is never closed; close it, or write \\( for the sign itself');
}

/** The range of the prompt with the edits that lie in it. */
function edited(prompt: string, edits: readonly Edit[], from: number, to: number): string {
  let at = from;
  const parts: string[] = [];
  for (const edit of edits.filter((each) => each.from >= from && each.to <= to)) {
    parts.push(prompt.slice(at, edit.from), edit.text);
    at = edit.to;
  }
  return parts.join('') + prompt.slice(at, to);
}

function spaces(prompt: string, from: number): number {
  return prompt.slice(from).length - prompt.slice(from).trimStart().length;
}

function fail(at: number, problem: string): never {
  throw new PromptSyntaxError(at, problem);
}
