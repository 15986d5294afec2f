/**
 * A prompt whose weights cannot be read. As text it is fine, so this is no InferenceError: the caller runs the prompt as it
 * stands and passes the message on.
 */
export class PromptSyntaxError extends Error {
  /** Position in the prompt, in UTF-16 units from 0. */
  readonly position: number;

  /** @param problem what is wrong and what to do, the end of "character 5: …" */
  constructor(position: number, problem: string) {
    super(`character ${position + 1}: ${problem}`);
    this.name = 'PromptSyntaxError';
    this.position = position;
  }
}
