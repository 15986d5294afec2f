/** A bucket and a key as they stand in a URL. */
export function objectPath(...parts: readonly string[]): string {
  return parts
    .flatMap((part) => part.split('/'))
    .map(encodeURIComponent)
    .join('/');
}
