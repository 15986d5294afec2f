const SOS = 0xda;
const EOI = 0xd9;

/**
 * Number of scans of a JPEG: 1 for a baseline image, about 10 for a progressive one. Every scan costs a pass over all pixels, so a
 * small file with thousands of them takes minutes to decode. Linear in the file's size; stops at `limit`.
 * ITU-T T.81, B.1.1: https://www.w3.org/Graphics/JPEG/itu-t81.pdf
 */
export function countJpegScans(bytes: Uint8Array, limit: number): number {
  let scans = 0;
  for (let at = 2; at + 3 < bytes.length && scans < limit; ) {
    if (bytes[at] !== 0xff) {
      // Entropy-coded data: its 0xFF bytes are followed by 0, or are restart markers.
      at = bytes.indexOf(0xff, at);
      if (at < 0) break;
      continue;
    }
    const marker = bytes[at + 1] ?? 0;
    if (marker === EOI) break;
    const hasNoLength = marker === 0 || marker === 0x01 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd8);
    if (hasNoLength) {
      at += marker === 0xff ? 1 : 2;
      continue;
    }
    if (marker === SOS) scans += 1;
    at += 2 + (((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0));
  }
  return scans;
}
