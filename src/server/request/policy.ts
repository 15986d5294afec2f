import { createHash } from 'node:crypto';
import type { Config } from '../../config/server-config.js';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { EmbeddingNames } from '../../pipelines/embeddings/embedding-names.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';
import { parsePrompt } from '../../pipelines/sdxl/prompt/prompt-weights.js';
import { cleanPrompt } from '../../pipelines/wan/prompt/clean-prompt.js';
import { type ModerationOptions, moderate } from '../../policy/moderation-service.js';
import { type OperatorRules, readOperatorRules } from '../../policy/operator-rules.js';
import * as builtIn from '../../policy/sexualises-minors.js';
import type { Caller } from '../access/caller.js';

type Refusal = builtIn.Refusal;
type Texts = builtIn.ConditioningTexts;

/** What is refused: the subject of the message. */
type What = 'the prompt' | 'the enhanced prompt' | 'the image';

/** Whose text or image is checked, as far as it is known. */
export interface PolicySubject {
  readonly jobId?: string | undefined;
  /** Name of the caller's token. */
  readonly token?: string | undefined;
}

/** The subject of a request that is no job yet. */
export function subjectOfRequest({ jobId }: { readonly jobId: string }, { name }: Caller): PolicySubject {
  return { jobId: jobId || undefined, token: name };
}

export function subjectOfJob({ id, owner }: { readonly id: string; readonly owner: string }): PolicySubject {
  return { jobId: id, token: owner };
}

/** Receives every refusal. The hash is the SHA-256 of the prompt, in hexadecimal digits. */
export type RefusalListener = (
  refusal: PolicySubject & { readonly rule: string; readonly promptSha256: string | undefined },
) => void;

interface PolicyOptions {
  readonly rules?: OperatorRules | undefined;
  readonly service?: ModerationOptions | undefined;
  readonly onRefusal?: RefusalListener | undefined;
}

const MINORS = 'sexual content involving minors is never generated';
const OPERATOR = "this server's policy does not allow it";

/** The built-in rule, an operator's rules and an operator's moderation service. The last two can only refuse more. */
export class Policy {
  readonly #log: Logger;
  readonly #rules: OperatorRules | undefined;
  readonly #service: ModerationOptions | undefined;
  readonly #onRefusal: RefusalListener | undefined;

  constructor(log: Logger, { rules, service, onRefusal }: PolicyOptions = {}) {
    this.#log = log;
    this.#rules = rules;
    this.#service = service;
    this.#onRefusal = onRefusal;
  }

  /**
   * @returns the error of refused texts; undefined if they may be used
   */
  find(texts: Texts, what: What = 'the prompt', subject?: PolicySubject): InferenceError | undefined {
    const all = asRead(texts);
    const refusal = builtIn.sexualisesMinors(all) ?? this.#rules?.find(all);
    return refusal && this.refused(refusal, what, subject, texts.positive[0]);
  }

  /** @throws InferenceError POLICY */
  assert(texts: Texts, what: What = 'the prompt', subject?: PolicySubject): void {
    const error = this.find(texts, what, subject);
    if (error !== undefined) throw error;
  }

  /**
   * Asks the moderation service, if there is one. Call `assert` before: what the built-in rule refuses is sent nowhere.
   * @throws InferenceError POLICY; POLICY_UNAVAILABLE if it does not answer and the policy fails closed
   */
  async moderate(
    { positive }: Texts,
    { what = 'the prompt', subject, signal }: { what?: What; subject?: PolicySubject; signal?: AbortSignal } = {},
  ): Promise<void> {
    if (this.#service === undefined) return;
    const refusal = await moderate(positive.filter((text) => text !== '').join('\n'), this.#service, signal);
    if (refusal !== undefined) throw this.refused(refusal, what, subject, positive[0]);
  }

  /** Logs that an image was not checked and is returned. */
  unchecked(problem: string, jobId: string): void {
    this.#log.warn({ jobId, problem }, 'image was not checked');
  }

  /** Logs a refusal, without the text. @returns the error for the caller, without the text or the rule */
  refused({ rule, language }: Refusal, what: What, subject: PolicySubject = {}, prompt?: string): InferenceError {
    const { jobId } = subject;
    const promptSha256 = prompt === undefined ? undefined : createHash('sha256').update(prompt).digest('hex');
    this.#onRefusal?.({ ...subject, rule, promptSha256 });
    this.#log.info({ jobId, rule, language }, `policy refused ${what === 'the image' ? 'an image' : 'a text'}`);
    return new InferenceError('POLICY', `${what} is refused: ${/^(?:minors|youths)\./.test(rule) ? MINORS : OPERATOR}`);
  }
}

/** @throws InferenceError INVALID_REQUEST with every fault of the operator's rules */
export async function createPolicy(config: Config, log: Logger, onRefusal?: RefusalListener): Promise<Policy> {
  builtIn.prepareRule();
  const { POLICY_RULES, POLICY_URL, POLICY_TIMEOUT_MS, POLICY_FAIL } = config;
  const rules = POLICY_RULES === undefined ? undefined : await readOperatorRules(POLICY_RULES);
  if (POLICY_URL === undefined) return new Policy(log, { rules, onRefusal });
  const onFailure = (problem: string) => log.warn({ problem, fail: POLICY_FAIL }, 'moderation service does not answer');
  const service = { url: POLICY_URL, timeoutMs: POLICY_TIMEOUT_MS, fail: POLICY_FAIL, onFailure };
  return new Policy(log, { rules, service, onRefusal });
}

/** Everything of a request that conditions its images. */
export function conditioningTexts({
  prompt,
  weights = '',
  negativePrompt,
  loras = [],
  embeddings = [],
}: GenerationRequest): Texts {
  const known = new EmbeddingNames(embeddings.map(({ name }) => name));
  // Those of the negative prompt stand there as text.
  const learned = [prompt, weights].flatMap((text) => known.in(text));
  return { positive: [prompt, weights, ...loras.map(({ name }) => name), ...learned], negative: negativePrompt };
}

/** Texts with their other forms: as WAN's tokenizer gets them, and the phrases of weights without their signs. */
function asRead({ positive, negative = '' }: Texts): Texts {
  const texts = positive.filter((text) => text !== '');
  const forms = texts.flatMap((text) => [text, cleanPrompt(text), ...phrasesOf(text)]);
  // What a prompt subtracts works as a negative prompt does, and the other way round.
  const negatives = [negative, ...texts.flatMap(subtractedFrom)].filter((text) => text !== '');
  return { positive: [...new Set([...forms, ...subtractedFrom(negative)])], negative: negatives.join(' \n') };
}

/** The phrases of a prompt one after the other, if it has weights. */
function phrasesOf(text: string): readonly string[] {
  const parsed = parsedOrNothing(text);
  if (parsed === undefined || !parsed.weighted) return [];
  return parsed.prompts.map((fragments) => fragments.map((fragment) => fragment.text).join(''));
}

/** The texts of a prompt that conditions the other way round in some place: a blend may subtract a prompt. */
function subtractedFrom(text: string): readonly string[] {
  const parsed = parsedOrNothing(text);
  return parsed?.kind === 'blend' && parsed.weights.some((weight) => weight < 0) ? [text] : [];
}

function parsedOrNothing(text: string): ReturnType<typeof parsePrompt> | undefined {
  try {
    return parsePrompt(text);
  } catch {
    // Signs that are no weights are text.
    return undefined;
  }
}
