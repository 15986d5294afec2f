import { pino } from 'pino';
import { Policy } from '../../src/server/request/policy.js';

/** The policy of an operator who has added nothing. */
export const policy = new Policy(pino({ level: 'silent' }));

/** True for a text that the built-in rule refuses. */
export function sexualisesMinors(text: string): boolean {
  return policy.find({ positive: [text] }) !== undefined;
}

/** @throws InferenceError POLICY for what the built-in rule refuses */
export function assertPolicy(text: string): void {
  policy.assert({ positive: [text] });
}
