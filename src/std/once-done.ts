/** Does something when it is first asked for, and gives the same outcome from then on. What failed is tried again. */
export function onceDone<T>(run: () => Promise<T>): () => Promise<T> {
  let outcome: Promise<T> | undefined;
  return () => {
    outcome ??= run().catch((error: unknown) => {
      outcome = undefined;
      throw error;
    });
    return outcome;
  };
}
