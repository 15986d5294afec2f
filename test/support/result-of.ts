/** What a generator returns, its events left aside. */
export async function resultOf<T>(generator: AsyncGenerator<unknown, T, undefined>): Promise<T> {
  for (;;) {
    const turn = await generator.next();
    if (turn.done) return turn.value;
  }
}
