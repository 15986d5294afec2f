import { InferenceError } from '../../errors.js';

/** The error of a store that rejected a request: a wrong token or password, or a command that it does not support. */
export function storeError(store: string, said: string): InferenceError {
  const isStranger = /^(WRONGPASS|NOAUTH|NOPERM)/.test(said);
  return new InferenceError(isStranger ? 'UNAUTHENTICATED' : 'INTERNAL', `${store} refused: ${said}`);
}
