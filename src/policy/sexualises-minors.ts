import { findsMinorAge, findsMinorAgeUnspaced } from './find-ages.js';
import { SenseFinder } from './find-senses.js';
import { type Lexicon, readLexicon, type Sense, type Topic } from './lexicon.js';
import {
  fold,
  joinedLettersOf,
  joinedWordsOf,
  partsOf,
  resolveReferences,
  type Stream,
  signedWordsOf,
  skeleton,
  wordsOf,
} from './normalise.js';

/** Why a text is refused. Has nothing of the text, so it may be logged. */
export interface Refusal {
  /** For example `minors.explicit`; an operator's rule has the operator's name. */
  readonly rule: string;
  /** BCP 47; `und` for a number. */
  readonly language: string;
}

/** Everything of a job that conditions its images. */
export interface ConditioningTexts {
  /** Texts that images follow: prompt, weights, enhanced prompt, names of LoRAs. */
  readonly positive: readonly string[];
  /** What images turn away from. */
  readonly negative?: string | undefined;
}

const NUMBER: Sense = { topic: 'minor', language: 'und', weak: false };
const NO_LETTER_OR_DIGIT = /[^\p{L}\p{M}\p{N}]+/gu;

let loaded: { readonly lexicon: Lexicon; readonly finder: SenseFinder } | undefined;

/** The lexicons are read when the first text is checked. */
function tools(): { readonly lexicon: Lexicon; readonly finder: SenseFinder } {
  if (loaded === undefined) {
    const lexicon = readLexicon();
    loaded = { lexicon, finder: new SenseFinder(lexicon) };
  }
  return loaded;
}

/** The rule that cannot be turned off. @returns undefined if the texts may be used */
export function sexualisesMinors({ positive, negative = '' }: ConditioningTexts): Refusal | undefined {
  const found = sensesOf(positive.join(' \n'));
  const refusal = decide(found);
  if (refusal !== undefined || negative.trim() === '') return refusal;
  // Turning away from clothes, or from adults, says the same as the opposite in the prompt.
  const away = sensesOf(negative);
  const opposite = new Set(found);
  for (const sense of away) {
    if (sense.topic === 'covering') opposite.add({ ...sense, topic: 'explicit' });
    if (sense.topic === 'adult') opposite.add({ ...sense, topic: 'minor' });
  }
  return decide(opposite, '.negative');
}

/** What a text speaks of, in any of the ways in which it can be read. */
export function sensesOf(text: string): ReadonlySet<Sense> {
  const found = new Set<Sense>();
  const seen = new Set<string>();
  for (const source of new Set([text, resolveReferences(text)])) {
    for (const gap of ['', ' '] as const) {
      const folded = fold(source, gap);
      for (const reading of [folded, skeleton(folded)]) {
        if (seen.has(reading)) continue;
        seen.add(reading);
        readInto(found, reading);
      }
    }
  }
  return found;
}

function readInto(found: Set<Sense>, folded: string): void {
  const { lexicon, finder } = tools();
  const parts = partsOf(folded);
  const joined = joinedWordsOf(folded);
  const letters = parts.filter(({ text }) => !/^\d/.test(text));
  const streams: Stream[] = [wordsOf(folded), letters, signedWordsOf(folded), joined, joinedLettersOf(folded)];
  const seen = new Set<string>();
  for (const stream of streams) {
    const words = stream.map(({ text }) => text).join(' ');
    if (seen.has(words)) continue;
    seen.add(words);
    finder.ofStream(stream, found);
    const apart = finder.apart(stream);
    if (apart !== undefined) finder.ofStream(apart, found);
  }
  finder.insideTokens(joined, found);
  for (const stream of [parts, finder.apart(parts)]) {
    if (stream !== undefined && findsMinorAge(stream, lexicon)) found.add(NUMBER);
  }
  for (const text of [folded, folded.replace(NO_LETTER_OR_DIGIT, '')]) {
    finder.ofUnspaced(text, found);
    if (findsMinorAgeUnspaced(text)) found.add(NUMBER);
  }
}

function decide(found: ReadonlySet<Sense>, where = ''): Refusal | undefined {
  const of = (...topics: Topic[]) => [...found].filter(({ topic }) => topics.includes(topic));
  for (const [subjects, contexts] of [
    [of('minor'), of('explicit', 'suggestive')],
    [of('youth'), of('explicit')],
  ] as const) {
    for (const subject of subjects) {
      const context = contexts.find((each) => belong(subject, each));
      if (context === undefined) continue;
      const language = subject.language === 'und' ? context.language : subject.language;
      return { rule: `${subject.topic === 'youth' ? 'youths' : 'minors'}.${context.topic}${where}`, language };
    }
  }
  return undefined;
}

/** A weak word counts beside a word of its own language. */
function belong(a: Sense, b: Sense): boolean {
  return (!a.weak && !b.weak) || a.language === b.language;
}
