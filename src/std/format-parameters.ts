/** A count of parameters as messages write it: "8.1 M parameters", and below a million "16.7 k parameters". */
export function formatParameters(count: number): string {
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} k parameters` : `${(count / 1e6).toFixed(1)} M parameters`;
}
