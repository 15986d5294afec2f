import { useEffect, useRef } from 'preact/hooks';
import { useToken as enterToken, tokenQuestion } from '../state/session';

/** Asks for a token when the server wants one. It is kept for this tab alone. */
export function TokenDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const input = useRef<HTMLInputElement>(null);
  const question = tokenQuestion.value;
  useEffect(() => {
    if (question === undefined) dialog.current?.close();
    else if (dialog.current?.open === false) dialog.current.showModal();
  }, [question]);
  const enter = (event: Event) => {
    event.preventDefault();
    const value = input.current?.value.trim() ?? '';
    if (value !== '') enterToken(value);
  };
  return (
    <dialog ref={dialog} aria-labelledby="token-title" onCancel={(event) => event.preventDefault()}>
      <form onSubmit={enter}>
        <h2 id="token-title">Token</h2>
        <p>This server wants a token. It stays in this tab until the tab is closed.</p>
        {question?.problem !== undefined && (
          <p class="error" role="alert">
            The server refused the token: {question.problem}
          </p>
        )}
        <label>
          Token
          <input ref={input} type="password" autocomplete="off" required />
        </label>
        <button type="submit" class="primary">
          Use this token
        </button>
      </form>
    </dialog>
  );
}
