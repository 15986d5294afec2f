/**
 * npm run bench -- files PICTURE [--side 1024] [--rounds 5]
 *
 * What a picture takes as a file of each format, and a PNG at other settings than the server's.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { encodeImage, imageFormats } from '../../src/media/encode-image.js';
import { median, print, stopwatch } from './stopwatch.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { side: { type: 'string', default: '1024' }, rounds: { type: 'string', default: '5' } },
});
const [picture] = positionals;
if (picture === undefined) {
  process.stderr.write('usage: npm run bench -- files PICTURE [--side 1024] [--rounds 5]\n');
  process.exit(2);
}

const side = Number(values.side);
const size = { width: side, height: side };
const rgb = await sharp(picture)
  .resize(side, side, { fit: 'cover' })
  .removeAlpha()
  .toColourspace('srgb')
  .raw()
  .toBuffer();
const png = (adaptiveFiltering: boolean, compressionLevel: number) => () =>
  sharp(rgb, { raw: { ...size, channels: 3 } })
    .png({ adaptiveFiltering, compressionLevel })
    .toBuffer();
const ways: readonly (readonly [string, () => Promise<Uint8Array>])[] = [
  ...imageFormats.map((format) => [format, async () => (await encodeImage(rgb, size, { format })).bytes] as const),
  ['png, rows as they are, zlib level 6', png(false, 6)],
  ...[2, 4, 6].map((level) => [`png, filtered rows, zlib level ${level}`, png(true, level)] as const),
];

print(`${cpus()[0]?.model}, Node ${process.version}; ${side}x${side}`);
for (const [name, encode] of ways) {
  let bytes = 0;
  const laps = [];
  for (let i = 0; i < Number(values.rounds); i += 1) {
    const lap = stopwatch();
    bytes = (await encode()).length;
    laps.push(lap());
  }
  print(`${name.padEnd(38)} ${(bytes / 1e6).toFixed(2)} MB, ${(1000 * median(laps).cpu).toFixed(0)} CPU ms`);
}
