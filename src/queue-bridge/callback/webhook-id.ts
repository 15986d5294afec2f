/**
 * The id of a callback, the same for every attempt and every repeat. A job has one of each kind, and one more for each replay by
 * an operator.
 */
export function webhookId(jobId: string, run: number, kind: 'processing' | 'terminal'): string {
  // "." divides what is signed.
  return `${jobId.replaceAll('.', '~')}:${run}:${kind}`;
}
