import { signal } from '@preact/signals';

const KEY = 'darkroom-token';

/** The token of this tab; empty: none. It is gone when the tab is closed. */
export const token = signal(sessionStorage.getItem(KEY) ?? '');

interface TokenQuestion {
  /** Why the token before was refused. Omitted: there was none. */
  readonly problem: string | undefined;
}

/** Set while the page waits for a token. */
export const tokenQuestion = signal<TokenQuestion | undefined>(undefined);

let answered: Promise<void> | undefined;
let resolveAnswer = () => {};

/** Shows the dialog and resolves when a token was entered. All calls wait for the same one. */
export function askForToken(problem: string | undefined): Promise<void> {
  answered ??= new Promise((resolve) => {
    resolveAnswer = resolve;
  });
  tokenQuestion.value = { problem };
  return answered;
}

export function useToken(value: string): void {
  token.value = value;
  sessionStorage.setItem(KEY, value);
  tokenQuestion.value = undefined;
  answered = undefined;
  resolveAnswer();
}
