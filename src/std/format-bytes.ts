/** Bytes as messages write them, in decimal gigabytes: "2.1 GB". */
export function formatBytes(bytes: number, decimals = 1): string {
  return `${(bytes / 1e9).toFixed(decimals)} GB`;
}
