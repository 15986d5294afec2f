import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { previewImage } from '../../src/media/preview-image.js';
import { gradient } from '../support/image.js';

describe('previewImage', () => {
  const cases = [
    { of: { width: 1024, height: 768 }, gives: { width: 256, height: 192 } },
    { of: { width: 200, height: 800 }, gives: { width: 64, height: 256 } },
    { of: { width: 257, height: 257 }, gives: { width: 256, height: 256 } },
    { of: { width: 64, height: 48 }, gives: { width: 64, height: 48 } },
  ];
  for (const { of, gives } of cases) {
    it(`makes ${gives.width}x${gives.height} of ${of.width}x${of.height}, in a few kilobytes`, async () => {
      const bytes = await previewImage(gradient(of), of);
      expect(await sharp(bytes).metadata()).toMatchObject({ format: 'jpeg', ...gives });
      expect(bytes.length).toBeLessThan(8192);
    });
  }
});
