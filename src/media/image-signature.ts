/** Formats that darkroom decodes. Each one is a decoder that hostile bytes reach. */
const referenceFormats = ['png', 'jpeg', 'webp'] as const;
export type ReferenceFormat = (typeof referenceFormats)[number];

/** Containers of videos that darkroom decodes. */
export type VideoContainer = 'mp4' | 'webm' | 'gif';

export type Signature =
  | { readonly kind: 'reference'; readonly format: ReferenceFormat }
  | { readonly kind: 'video'; readonly container: VideoContainer; readonly name: string }
  /** Known, and rejected by name: "a GIF". */
  | { readonly kind: 'other'; readonly name: string }
  | { readonly kind: 'unknown' };

/** Binary formats that people send, in Latin-1: name, offset, signatures. */
const others: readonly (readonly [name: string, offset: number, ...signatures: string[]])[] = [
  ['an AVIF', 4, 'ftypavif', 'ftypavis'],
  ['a HEIF', 4, 'ftyphei', 'ftyphev', 'ftypmif1', 'ftypmsf1'],
  ['a JPEG XL', 0, '\xff\n', '\0\0\0\fJXL '],
  ['a JPEG 2000', 0, '\0\0\0\fjP  ', '\xff\x4f\xff\x51'],
  ['a TIFF', 0, 'II*\0', 'MM\0*', 'II+\0', 'MM\0+'],
  ['a BMP', 0, 'BM'],
  ['an icon', 0, '\0\0\x01\0', '\0\0\x02\0'],
  ['a Photoshop document', 0, '8BPS'],
  ['a PDF', 0, '%PDF-'],
  ['an archive', 0, 'PK\x03\x04', '\x1f\x8b'],
];

/** The same of videos, behind the images whose files begin alike. */
const videos: readonly (readonly [VideoContainer, name: string, offset: number, signature: string])[] = [
  ['gif', 'a GIF', 0, 'GIF8'],
  ['mp4', 'a video', 4, 'ftyp'],
  ['webm', 'a video', 0, '\x1aE\xdf\xa3'],
];

/** Bytes that are searched for a signature. They are at the start, but an SVG may begin with a comment. */
const SNIFFED_BYTES = 1024;

/** Detects the format from the bytes. A file name or a header is not reliable. */
export function signatureOf(bytes: Uint8Array): Signature {
  const start = Buffer.from(bytes.subarray(0, SNIFFED_BYTES)).toString('latin1');
  if (start.startsWith('\x89PNG\r\n\x1a\n')) return { kind: 'reference', format: 'png' };
  if (start.startsWith('\xff\xd8\xff')) return { kind: 'reference', format: 'jpeg' };
  if (start.startsWith('RIFF') && start.startsWith('WEBP', 8)) return { kind: 'reference', format: 'webp' };
  const other = others.find(([, offset, ...signatures]) => signatures.some((it) => start.startsWith(it, offset)))?.[0];
  if (other !== undefined) return { kind: 'other', name: other };
  const video = videos.find(([, , offset, signature]) => start.startsWith(signature, offset));
  if (video !== undefined) return { kind: 'video', container: video[0], name: video[1] };
  const name = markupOf(
    start
      .replace(/^\xef\xbb\xbf/, '')
      .trimStart()
      .toLowerCase(),
  );
  return name === undefined ? { kind: 'unknown' } : { kind: 'other', name };
}

function markupOf(text: string): string | undefined {
  if (!text.startsWith('<')) return undefined;
  if (text.includes('<svg') || text.includes('<!doctype svg')) return 'an SVG';
  return text.includes('<html') || text.includes('<!doctype html') ? 'a web page' : 'XML';
}
