import { readLexicon, type Sense, type Topic } from './lexicon.js';
import { SenseReader } from './sense-reader.js';

/** Why a text is refused. Has nothing of the text, so it may be logged. */
export interface Refusal {
  /** For example `minors.explicit`; `operator.` and a name for an operator's rule, `service.` for a moderation service. */
  readonly rule: string;
  /** Language of the words by its BCP 47 tag; `und` where it has none. */
  readonly language: string;
}

/** Everything of a job that conditions its images. */
export interface ConditioningTexts {
  /** Texts that images follow: prompt, weights, enhanced prompt, names of LoRAs. */
  readonly positive: readonly string[];
  /** What images turn away from. */
  readonly negative?: string | undefined;
}

/** Characters before new text that are read again with it: more than any phrase has. */
const OVERLAP = 80;

let reader: SenseReader | undefined;

/** Reads the lexicons. Otherwise the first text that is checked waits for them. */
export function prepareRule(): void {
  builtIn();
}

function builtIn(): SenseReader {
  reader ??= new SenseReader(readLexicon());
  return reader;
}

/** The rule that cannot be turned off. @returns undefined if the texts may be used */
export function sexualisesMinors({ positive, negative = '' }: ConditioningTexts): Refusal | undefined {
  const found = builtIn().sensesOf(positive.join(' \n'));
  const refusal = decide(found);
  if (refusal !== undefined || negative.trim() === '') return refusal;
  // Turning away from clothes, or from adults, says the same as the opposite in the prompt.
  const opposite = new Set(found);
  for (const sense of builtIn().sensesOf(negative)) {
    if (sense.topic === 'covering') opposite.add({ ...sense, topic: 'explicit' });
    if (sense.topic === 'adult') opposite.add({ ...sense, topic: 'minor' });
  }
  return decide(opposite, '.negative');
}

/** The same rule over a text that is still being written: each part is read once, with a little of the text before it. */
export class WrittenText {
  readonly #found = new Set<Sense>();
  #end = '';

  /** @returns why the text so far is refused */
  add(part: string): Refusal | undefined {
    const text = this.#end + part;
    const senses = builtIn().sensesOfPart(text);
    const refusal = decide(new Set([...this.#found, ...senses]));
    // The last word may go on: "kid" may become "kidney".
    const complete = text.slice(0, Math.max(0, text.lastIndexOf(' ')));
    if (text.length > 2 * OVERLAP) {
      for (const sense of builtIn().sensesOfPart(complete)) this.#found.add(sense);
      this.#end = text.slice(text.indexOf(' ', text.length - OVERLAP) + 1 || text.length - OVERLAP);
    } else this.#end = text;
    return refusal;
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

/** A weak word counts beside a word of its own language, and beside a number. */
function belong(a: Sense, b: Sense): boolean {
  return (!a.weak && !b.weak) || a.language === b.language || a.language === 'und';
}
