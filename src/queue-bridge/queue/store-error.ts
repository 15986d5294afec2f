import { InferenceError } from '../../errors.js';

/** What a store said no to: the token or password, or a command that it does not take. */
export function storeError(store: string, said: string): InferenceError {
  const isStranger = /^(WRONGPASS|NOAUTH|NOPERM)/.test(said);
  return new InferenceError(isStranger ? 'UNAUTHENTICATED' : 'INTERNAL', `${store} refused: ${said}`);
}
