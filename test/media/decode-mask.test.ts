import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeMask } from '../../src/media/decode-mask.js';

const size = { width: 8, height: 8, maxPixels: 1_000_000 };

/** An image of 8 x 8 pixels whose left half is one colour and the right half another one, RGBA. */
function halves(left: readonly number[], right: readonly number[]): Promise<Buffer> {
  const pixels = Array.from({ length: 64 }, (_, i) => (i % 8 < 4 ? left : right)).flat();
  return sharp(Uint8Array.from(pixels), { raw: { width: 8, height: 8, channels: 4 } })
    .png()
    .toBuffer();
}
const row = (mask: Uint8Array) => [...mask.subarray(0, 8)];
const white = [255, 255, 255, 255];
const black = [0, 0, 0, 255];

describe('a mask', () => {
  it('draws anew where it is white, and half where it is grey', async () => {
    expect(row(await decodeMask(await halves(white, black), size, 0))).toEqual([255, 255, 255, 255, 0, 0, 0, 0]);
    expect(row(await decodeMask(await halves([128, 128, 128, 255], black), size, 0))[0]).toBe(128);
  });

  it('of colours counts their luminance, rounded', async () => {
    // 0.299 * 200 + 0.587 * 30 + 0.114 * 90 = 87.67
    expect(row(await decodeMask(await halves([200, 30, 90, 255], black), size, 0))[0]).toBe(88);
  });

  it('with transparent pixels draws anew where it is transparent, whatever its colours', async () => {
    const clear = [255, 0, 0, 0];
    expect(row(await decodeMask(await halves(white, clear), size, 0))).toEqual([0, 0, 0, 0, 255, 255, 255, 255]);
  });

  it('is fitted like the image, and blurred after that', async () => {
    const wide = await sharp(await halves(white, black))
      .resize(64, 16, { fit: 'fill', kernel: 'nearest' })
      .png()
      .toBuffer();
    expect(row(await decodeMask(wide, size, 0))[0]).toBe(255);
    const blurred = row(await decodeMask(await halves(white, black), size, 1.5));
    expect(new Set(blurred).size).toBeGreaterThan(4);
    expect([...blurred].sort((a, b) => b - a)).toEqual(blurred);
  });

  it('that is no image is refused as a reference is', async () => {
    await expect(decodeMask(Buffer.from('<svg/>'), size, 0)).rejects.toMatchObject({ reason: 'REFERENCE_INVALID' });
  });
});
