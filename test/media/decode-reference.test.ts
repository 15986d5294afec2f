import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeReference, decodeWholeReference } from '../../src/media/decode-reference.js';
import { gradient } from '../support/image.js';
import { pngOf } from '../support/png-bytes.js';
import { refusalOf } from '../support/reference-errors.js';

const size = { width: 64, height: 48 };
const rgb = gradient(size);
const picture = () => sharp(rgb, { raw: { ...size, channels: 3 } });
const same = { ...size, maxPixels: 1_000_000 };

/** The mean of each channel in a corner, a quarter of the image's sides wide and high. */
function cornerOf(pixels: Uint8Array, { width, height }: { width: number; height: number }, right = 0, bottom = 0) {
  const sum = [0, 0, 0];
  const [w, h] = [width / 4, height / 4];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const at = ((y + bottom * (height - h)) * width + x + right * (width - w)) * 3;
      for (const c of [0, 1, 2]) sum[c] = (sum[c] ?? 0) + (pixels[at + c] ?? 0);
    }
  }
  return sum.map((total) => total / (w * h));
}

function expectNear(actual: readonly number[], expected: readonly number[], tolerance: number) {
  for (const [i, value] of expected.entries())
    expect(Math.abs((actual[i] ?? Number.NaN) - value)).toBeLessThan(tolerance);
}

const refusal = (bytes: Uint8Array, options = same) => refusalOf(decodeReference(bytes, options));

describe('decodeReference', () => {
  it('returns the exact pixels of a lossless file of the requested size', async () => {
    const taken = { rgb: Buffer.from(rgb), sourceWidth: 64, sourceHeight: 48 };
    expect(await decodeReference(await picture().png().toBuffer(), same)).toEqual({ ...taken, format: 'png' });
    const webp = await picture().webp({ lossless: true }).toBuffer();
    expect(await decodeReference(webp, same)).toEqual({ ...taken, format: 'webp' });
  });

  // Each differs from the image by rounding and compression only.
  const spellings = {
    'a JPEG': () => picture().jpeg({ quality: 100, chromaSubsampling: '4:4:4' }),
    'a progressive JPEG': () => picture().jpeg({ quality: 100, chromaSubsampling: '4:4:4', progressive: true }),
    'an interlaced PNG': () => picture().png({ progressive: true }),
    'a PNG of 16 bit': () => picture().toColourspace('rgb16').png(),
    'a PNG with an opaque alpha channel': () => picture().ensureAlpha().png(),
  };
  for (const [name, spell] of Object.entries(spellings)) {
    it(`takes ${name}`, async () => {
      const reference = await decodeReference(await spell().toBuffer(), same);
      expect(reference.rgb).toHaveLength(64 * 48 * 3);
      for (const [right, bottom] of [
        [0, 0],
        [1, 0],
        [0, 1],
        [1, 1],
      ]) {
        expectNear(cornerOf(reference.rgb, size, right, bottom), cornerOf(rgb, size, right, bottom), 3);
      }
    });
  }

  it('converts a wide-gamut profile to sRGB', async () => {
    const file = await picture().withIccProfile('p3').png().toBuffer();
    const asStored = await sharp(file, { ignoreIcc: true }).raw().toBuffer();
    const { rgb: decoded } = await decodeReference(file, same);
    expect(Math.abs((cornerOf(asStored, size, 1)[0] ?? 0) - (cornerOf(rgb, size, 1)[0] ?? 0))).toBeGreaterThan(8);
    expectNear(cornerOf(decoded, size, 1), cornerOf(rgb, size, 1), 3);
  });

  it('converts CMYK to sRGB', async () => {
    const file = await picture().toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer();
    const { rgb: decoded } = await decodeReference(file, same);
    expectNear(cornerOf(decoded, size, 1, 1), cornerOf(rgb, size, 1, 1), 20);
  });

  for (const space of ['b-w', 'grey16'] as const) {
    it(`takes greys (${space}) as three equal channels`, async () => {
      const { rgb: decoded } = await decodeReference(await picture().toColourspace(space).png().toBuffer(), same);
      expect(decoded).toHaveLength(64 * 48 * 3);
      for (let i = 0; i < decoded.length; i += 3) expect(new Set(decoded.subarray(i, i + 3)).size).toBe(1);
    });
  }

  it('flattens transparency on white', async () => {
    const red = { r: 255, g: 0, b: 0 };
    for (const [alpha, expected] of [
      [0, [255, 255, 255]],
      [0.5, [255, 127, 127]],
      [1, [255, 0, 0]],
    ] as const) {
      const create = { ...size, channels: 4, background: { ...red, alpha } } as const;
      for (const file of [
        sharp({ create }).png(),
        sharp({ create }).toColourspace('rgb16').png(),
        sharp({ create }).webp(),
      ]) {
        const { rgb: decoded } = await decodeReference(await file.toBuffer(), same);
        expectNear([...decoded.subarray(0, 3)], expected, 3);
      }
    }
  });

  it('applies the EXIF orientation', async () => {
    // The corners of the upright image, for every stored orientation.
    for (let orientation = 1; orientation <= 8; orientation++) {
      const turned = await sharp(await picture().png().toBuffer())
        .keepMetadata()
        .withMetadata({ orientation })
        .png()
        .toBuffer();
      const upright = await decodeReference(turned, { width: 64, height: 64, maxPixels: 1_000_000 });
      const swapped = orientation >= 5;
      expect([upright.sourceWidth, upright.sourceHeight]).toEqual(swapped ? [48, 64] : [64, 48]);
      const { right, bottom } = firstCorner[orientation - 1] ?? { right: 0, bottom: 0 };
      expectNear(cornerOf(upright.rgb, { width: 64, height: 64 }, right, bottom).slice(0, 1), [40], 24);
      expectNear(cornerOf(upright.rgb, { width: 64, height: 64 }, right, bottom).slice(1, 2), [32], 24);
    }
  });

  it('takes the first frame of an animation', async () => {
    const frames = Buffer.concat([Buffer.alloc(20 * 10 * 3, 250), Buffer.alloc(20 * 10 * 3, 10)]);
    const raw = { width: 20, height: 20, channels: 3, pageHeight: 10 } as const;
    const file = await sharp(frames, { raw }).webp({ lossless: true }).toBuffer();
    expect((await sharp(file).metadata()).pages).toBe(2);
    const decoded = await decodeReference(file, { width: 20, height: 10, maxPixels: 200 });
    expect([decoded.sourceWidth, decoded.sourceHeight]).toEqual([20, 10]);
    expect(new Set(decoded.rgb)).toEqual(new Set([250]));
  });

  it('covers the requested size and crops both ends evenly', async () => {
    // Three bands; a third of the width is wanted at full height.
    const band = (r: number, g: number, b: number) => ({
      create: { width: 30, height: 30, channels: 3, background: { r, g, b } } as const,
    });
    const composite = [band(0, 255, 0), band(0, 0, 255)].map((input, i) => ({ input, left: 30 * (i + 1), top: 0 }));
    const wide = { create: { ...band(255, 0, 0).create, width: 90 } };
    const file = await sharp(wide).composite(composite).png().toBuffer();
    const middle = await decodeReference(file, { width: 30, height: 30, maxPixels: 2700 });
    for (let i = 0; i < middle.rgb.length; i += 3) expect([...middle.rgb.subarray(i, i + 3)]).toEqual([0, 255, 0]);
    const enlarged = await decodeReference(file, { width: 180, height: 60, maxPixels: 2700 });
    expect([...enlarged.rgb.subarray(0, 3)]).toEqual([255, 0, 0]);
    expect([...enlarged.rgb.subarray(-3)]).toEqual([0, 0, 255]);
  });

  it('accepts maxPixels pixels and rejects one more', async () => {
    const file = await picture().png().toBuffer();
    await expect(decodeReference(file, { ...same, maxPixels: 3072 })).resolves.toMatchObject({ sourceWidth: 64 });
    expect(await refusal(file, { ...same, maxPixels: 3071 })).toBe(
      'the reference is 64x48, 3072 pixels, and the limit is 3071; send a smaller image',
    );
  });

  describe('of 30000x30000 pixels in a small file', () => {
    const header = { width: 30_000, height: 30_000, bitDepth: 1 };
    const limits = { ...same, maxPixels: 50_000_000 };
    const sentence = 'the reference is 30000x30000, 900000000 pixels, and the limit is 50000000; send a smaller image';

    it('is rejected', async () => {
      const file = pngOf(header, deflateSync(Buffer.alloc(30_000 * (1 + 30_000 / 8))));
      expect(file.length).toBeLessThan(200_000);
      expect(await refusal(file, limits)).toBe(sentence);
    });

    it('is not decoded', async () => {
      expect(await refusal(pngOf(header, Buffer.from('these are no pixels')), limits)).toBe(sentence);
    });
  });

  it('accepts a side 32 times the other and rejects a longer one', async () => {
    const line = (width: number) =>
      sharp({ create: { width, height: 2, channels: 3, background: 'teal' } })
        .png()
        .toBuffer();
    await expect(decodeReference(await line(64), { ...same, width: 64, height: 2048 })).resolves.toMatchObject({
      sourceHeight: 2,
    });
    expect(await refusal(await line(65))).toBe(
      'the reference is 65x2, and a side may be at most 32 times the other; send an image nearer to a square',
    );
  });

  // The crop lies in the upper half, so the missing part would not be decoded.
  const tall = { width: 300, height: 1200 };
  for (const [format, said] of [
    ['png', /^the reference is a PNG that is damaged or cut short \(.*\); send the whole file$/],
    [
      'jpeg',
      /^the reference is a JPEG that is damaged or cut short \(VipsJpeg: premature end of JPEG image\); send the whole file$/,
    ],
    ['webp', /^the reference is a WebP that is damaged or cut short \(.*\); send the whole file$/],
  ] as const) {
    it(`refuses a ${format} that ends early, though a crop would not miss the rest`, async () => {
      const file = await sharp(gradient(tall), { raw: { ...tall, channels: 3 } })
        [format]()
        .toBuffer();
      await expect(decodeReference(file, { ...same, width: 300, height: 10 })).resolves.toMatchObject({ format });
      for (const part of [0.95, 0.6]) {
        const cut = file.subarray(0, Math.floor(file.length * part));
        expect(await refusal(cut, { ...same, width: 300, height: 10 })).toMatch(said);
      }
    });
  }

  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>';
  const others: readonly [string, string, string][] = [
    ['an empty body', '', 'is empty'],
    ['an SVG', svg, 'is an SVG'],
    ['an SVG behind a prolog', `\ufeff<?xml version="1.0"?>\n<!-- a house -->\n${svg}`, 'is an SVG'],
    ['a web page sent as image/png', '\n<!DOCTYPE html><html><body>Not found</body></html>', 'is a web page'],
    ['XML', '<Error><Code>AccessDenied</Code></Error>', 'is XML'],
    ['a GIF', 'GIF89a\x01\0\x01\0', 'is a GIF'],
    ['a HEIF', '\0\0\0\x18ftypheic', 'is a HEIF'],
    ['an AVIF', '\0\0\0\x18ftypavif', 'is an AVIF'],
    ['a video', '\0\0\0\x18ftypisom', 'is a video'],
    ['a TIFF', 'II*\0\b\0\0\0', 'is a TIFF'],
    ['a PDF', '%PDF-1.7\n', 'is a PDF'],
    ['a BMP', 'BM\x46\0\0\0', 'is a BMP'],
    ['an archive', 'PK\x03\x04', 'is an archive'],
    ['words', 'a red kite over a field', 'does not begin like any known image format'],
    ["a sound in WebP's wrapping", 'RIFF\x24\0\0\0WAVEfmt ', 'does not begin like any known image format'],
  ];
  for (const [name, content, what] of others) {
    it(`refuses ${name}`, async () => {
      const bytes = Buffer.from(content, content.startsWith('\ufeff') ? 'utf8' : 'latin1');
      expect(await refusal(bytes)).toBe(`the reference ${what}; send a PNG, a JPEG or a WebP`);
    });
  }

  it('rejects a signature without an image', async () => {
    for (const [signature, name] of [
      ['\x89PNG\r\n\x1a\n', 'PNG'],
      ['\xff\xd8\xff\xe0', 'JPEG'],
      ['RIFF\x04\0\0\0WEBP', 'WebP'],
    ] as const) {
      expect(await refusal(Buffer.from(signature, 'latin1'))).toMatch(
        `the reference is a ${name} that is damaged or cut short`,
      );
    }
  });
});

/** Where EXIF's orientations 1 to 8 put what is stored first. */
const firstCorner = [
  { right: 0, bottom: 0 },
  { right: 1, bottom: 0 },
  { right: 1, bottom: 1 },
  { right: 0, bottom: 1 },
  { right: 0, bottom: 0 },
  { right: 1, bottom: 0 },
  { right: 1, bottom: 1 },
  { right: 0, bottom: 1 },
];

describe('a JPEG of thousands of scans', () => {
  it('is refused before it is decoded', { timeout: 5000 }, async () => {
    const image = await sharp({ create: { width: 256, height: 256, channels: 3, background: 'red' } })
      .jpeg({ progressive: true })
      .toBuffer();
    const last = image.lastIndexOf(Buffer.from([0xff, 0xda]));
    const scan = image.subarray(last, image.length - 2);
    const bomb = Buffer.concat([
      image.subarray(0, last),
      ...Array.from({ length: 2600 }, () => scan),
      image.subarray(-2),
    ]);
    const options = { width: 64, height: 64, maxPixels: 1e6 };
    await expect(decodeReference(bomb, options)).rejects.toMatchObject({
      reason: 'REFERENCE_INVALID',
      message: 'the reference is a JPEG of more than 100 scans; send it as an ordinary JPEG',
    });
    expect((await decodeReference(image, options)).sourceWidth).toBe(256);
  });
});

describe('decodeWholeReference', () => {
  it('returns the exact pixels of a lossless file in its own size', async () => {
    const whole = await decodeWholeReference(await picture().png().toBuffer(), 1_000_000);
    expect(whole).toEqual({ rgb: Buffer.from(rgb), ...size });
  });

  it('makes an image of more than 2097152 pixels smaller, in its shape', async () => {
    const background = { r: 200, g: 90, b: 40 };
    const large = (width: number, height: number) =>
      sharp({ create: { width, height, channels: 3, background } })
        .png()
        .toBuffer();
    const kept = await decodeWholeReference(await large(2048, 1024), 5_000_000);
    expect([kept.width, kept.height]).toEqual([2048, 1024]);
    const shrunk = await decodeWholeReference(await large(4096, 1024), 5_000_000);
    expect([shrunk.width, shrunk.height]).toEqual([2896, 724]);
    expect(shrunk.rgb).toHaveLength(2896 * 724 * 3);
    expect([...shrunk.rgb.subarray(0, 3)]).toEqual([200, 90, 40]);
  });

  it('refuses a file that ends early', async () => {
    const file = await picture().png().toBuffer();
    expect(await refusalOf(decodeWholeReference(file.subarray(0, file.length / 2), 1_000_000))).toMatch(
      /damaged or cut short/,
    );
  });
});
