import { z } from 'zod';
import { readOperatorYaml } from '../std/operator-file.js';
import { type Lexicon, lexiconOf } from './lexicon.js';
import { SenseReader } from './sense-reader.js';
import type { ConditioningTexts, Refusal } from './sexualises-minors.js';

const MAX_FILE_BYTES = 1024 * 1024;
const MAX_TERMS = 10_000;

const term = z.string().trim().min(1).max(100);
const ruleSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be lower-case letters, digits, ".", "_" and "-"'),
  words: z.array(term).min(1).max(MAX_TERMS),
  with: z.array(term).max(MAX_TERMS).optional(),
});
const fileSchema = z.strictObject({ refuse: z.array(ruleSchema).min(1).max(1000) });

/** Rules of an operator. They refuse more than the built-in rule, never less. */
export interface OperatorRules {
  /** @returns undefined if no rule refuses the texts. Negative prompts are not looked at. */
  find(texts: ConditioningTexts): Refusal | undefined;
}

/**
 * Reads an operator's rules, a YAML file.
 * @throws InferenceError INVALID_REQUEST that lists every fault of the file
 */
export async function readOperatorRules(path: string): Promise<OperatorRules> {
  const { refuse: rules } = await readOperatorYaml(path, fileSchema, {
    variable: 'POLICY_RULES',
    maxBytes: MAX_FILE_BYTES,
  });
  const reader = new SenseReader(lexiconOfRules(rules));
  return {
    find({ positive }) {
      const found = [...reader.sensesOf(positive.join(' \n'))];
      const has = (rule: string, topic: string) => found.some((each) => each.language === rule && each.topic === topic);
      const hit = rules.find(({ name, with: others = [] }) => {
        return has(name, 'minor') && (others.length === 0 || has(name, 'explicit'));
      });
      return hit && { rule: `operator.${hit.name}`, language: 'und' };
    },
  };
}

/** The words of a rule take the place of a language's: `words` of its subjects, `with` of their context. */
function lexiconOfRules(rules: readonly z.infer<typeof ruleSchema>[]): Lexicon {
  return lexiconOf(
    rules.map(({ name, words, with: others = [] }) => ({ language: name, minor: words, explicit: others })),
  );
}
