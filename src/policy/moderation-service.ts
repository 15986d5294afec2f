import { z } from 'zod';
import { InferenceError } from '../errors.js';
import type { Refusal } from './sexualises-minors.js';

/** Answers are a few words. */
const MAX_ANSWER_BYTES = 64 * 1024;

const answerSchema = z.object({
  refused: z.boolean(),
  rule: z.string().max(200).optional(),
});

export interface ModerationOptions {
  readonly url: string;
  /** Time limit of a call, in ms. */
  readonly timeoutMs: number;
  /** What happens where the service does not answer: `closed` refuses the prompt, `open` lets it pass. */
  readonly fail: 'closed' | 'open';
  /** Called when the service does not answer. */
  readonly onFailure: (problem: string) => void;
}

/**
 * Asks an operator's moderation service: POST with `{"text": "…"}`, answered by `{"refused": true, "rule": "name"}`.
 * @returns undefined if the service lets the text pass
 * @throws InferenceError POLICY_UNAVAILABLE if it does not answer and `fail` is `closed`; the signal's reason
 */
export async function moderate(
  text: string,
  { url, timeoutMs, fail, onFailure }: ModerationOptions,
  signal?: AbortSignal,
): Promise<Refusal | undefined> {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text }),
      redirect: 'error',
      signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    });
    const body = await readBounded(response);
    if (!response.ok) throw new Error(`it answers with status ${response.status}`);
    const { refused, rule } = answerSchema.parse(JSON.parse(body));
    return refused ? { rule: `service.${(rule ?? 'refused').replace(/[^\w.-]/g, '_')}`, language: 'und' } : undefined;
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    onFailure(timeout.aborted ? `no answer within ${timeoutMs} ms` : `${(error as Error).name}`);
    if (fail === 'open') return undefined;
    throw new InferenceError(
      'POLICY_UNAVAILABLE',
      'the moderation service does not answer, so no prompt is accepted; try again later, or see POLICY_URL and POLICY_FAIL',
      { retryAfterMs: timeoutMs },
    );
  }
}

async function readBounded({ body }: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of body ?? []) {
    bytes += part.length;
    if (bytes > MAX_ANSWER_BYTES) throw new Error(`its answer has more than ${MAX_ANSWER_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}
