/** A number with its noun: "1 job", "3 jobs". @param many omitted: the noun with an s */
export function counted(count: number, noun: string, many = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : many}`;
}
