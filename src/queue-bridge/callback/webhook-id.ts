/** The id of a message, the same for every attempt and every repeat. A job has one per kind and run. */
export function webhookId(jobId: string, run: number, kind: 'processing' | 'terminal' | 'usage'): string {
  // Standard Webhooks separate the signed parts by ".".
  return `${jobId.replaceAll('.', '~')}:${run}:${kind}`;
}
