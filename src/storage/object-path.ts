/** Encodes a bucket and a key for the path of a URL. */
export function objectPath(...parts: readonly string[]): string {
  return parts
    .flatMap((part) => part.split('/'))
    .map(encodeURIComponent)
    .join('/');
}
