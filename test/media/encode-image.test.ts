import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { encodeImage, imageFormats } from '../../src/media/encode-image.js';
import type { GenerationParameters, ImageMetadata } from '../../src/media/image-metadata.js';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { gradient } from '../support/image.js';
import { pngChunks, readParameters, xmpProperty } from '../support/read-metadata.js';

const size = { width: 40, height: 24 };
const rgb = gradient(size);

const parameters: GenerationParameters = {
  prompt: 'a red kite over a field, morning light',
  negativePrompt: 'blurry, text',
  seed: 123456789,
  steps: 25,
  guidanceScale: 7.5,
  scheduler: 'dpmpp_2m_karras',
  width: 40,
  height: 24,
  model: 'sdxl',
  version: '1.2.3',
};
const full = (overrides: Partial<GenerationParameters> = {}): ImageMetadata => ({
  kind: 'full',
  parameters: { ...parameters, ...overrides },
});

const INFOTEXT = `a red kite over a field, morning light
Negative prompt: blurry, text
Steps: 25, Sampler: dpmpp_2m_karras, CFG scale: 7.5, Seed: 123456789, Size: 40x24, Model: sdxl, Version: darkroom 1.2.3`;

const MARK = 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia';

describe('encodeImage', () => {
  it('keeps every pixel of a PNG', async () => {
    const { bytes, contentType } = await encodeImage(rgb, size, { format: 'png', quality: 1 });
    expect(contentType).toBe('image/png');
    const { data, info } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true });
    expect(info).toMatchObject({ ...size, channels: 3 });
    expect(Buffer.from(rgb).equals(data)).toBe(true);
  });

  it('filters the rows of a PNG: without, a picture takes half as many bytes again', async () => {
    const picture = { width: 256, height: 256 };
    const noise = new TorchCpuGenerator(0).randn(picture.width * picture.height * 3);
    const clamped = Uint8ClampedArray.from(gradient(picture), (value, i) => value + (noise[i] ?? 0));
    const pixels = new Uint8Array(clamped.buffer);
    const { bytes } = await encodeImage(pixels, picture, { format: 'png' });
    const plain = await sharp(pixels, { raw: { ...picture, channels: 3 } })
      .png({ compressionLevel: 6 })
      .toBuffer();
    expect(plain.length / bytes.length).toBeGreaterThan(1.5);
  });

  for (const format of ['webp', 'jpeg'] as const) {
    it(`writes ${format} near the picture, nearer and larger with more quality`, async () => {
      const [low, usual, high] = await Promise.all(
        [10, undefined, 100].map((quality) => encodeImage(rgb, size, { format, quality })),
      );
      if (!low || !usual || !high) throw new Error('three files were asked for');
      expect(usual.contentType).toBe(`image/${format}`);
      expect(low.bytes.length).toBeLessThan(usual.bytes.length);
      expect(usual.bytes.length).toBeLessThan(high.bytes.length);
      expect((await encodeImage(rgb, size, { format, quality: 90 })).bytes).toEqual(usual.bytes);
      expect(await meanDifference(usual.bytes)).toBeLessThan(await meanDifference(low.bytes));
      expect(await meanDifference(usual.bytes)).toBeLessThan(4);
    });
  }

  it('keeps colour at full resolution in a JPEG', async () => {
    const { bytes } = await encodeImage(rgb, size, { format: 'jpeg' });
    expect((await sharp(bytes).metadata()).chromaSubsampling).toBe('4:4:4');
  });
});

describe('metadata', () => {
  for (const format of imageFormats) {
    describe(`of a ${format}`, () => {
      const encode = async (metadata?: ImageMetadata) => (await encodeImage(rgb, size, { format, metadata })).bytes;
      const pixelsOf = (bytes: Uint8Array) => sharp(bytes, { failOn: 'warning' }).raw().toBuffer();

      it('leaves the pixels as they are', async () => {
        const plain = await pixelsOf(await encode());
        for (const metadata of [full(), { kind: 'provenance' }, { kind: 'none' }] as const) {
          expect(plain.equals(await pixelsOf(await encode(metadata)))).toBe(true);
        }
      });

      it('has all parameters where tools look for them', async () => {
        const bytes = await encode(full());
        expect(await readParameters(bytes)).toBe(INFOTEXT);
        expect(await xmpProperty(bytes, 'DigitalSourceType')).toBe(MARK);
        expect(await xmpProperty(bytes, 'AISystemUsed')).toBe('darkroom (model sdxl)');
        expect(await xmpProperty(bytes, 'AISystemVersionUsed')).toBe('1.2.3');
        expect(await xmpProperty(bytes, 'AIPromptInformation')).toBe(
          'a red kite over a field, morning light\nNegative prompt: blurry, text',
        );
      });

      it('has the provenance mark only', async () => {
        const bytes = await encode({ kind: 'provenance' });
        expect(await xmpProperty(bytes, 'DigitalSourceType')).toBe(MARK);
        expect(await xmpProperty(bytes, 'AIPromptInformation')).toBeUndefined();
        expect(await readParameters(bytes)).toBeUndefined();
        expect(Buffer.from(bytes).includes('darkroom')).toBe(false);
      });

      it('is absent for none, and by default', async () => {
        const bytes = await encode({ kind: 'none' });
        const { xmp, exif, comments } = await sharp(bytes).metadata();
        expect([xmp, exif, comments]).toEqual([undefined, undefined, undefined]);
        expect(await encode()).toEqual(bytes);
      });

      it('holds any text', async () => {
        const prompt = 'Käse & <b>"bread"</b> ]]> 🧀\u0000\u0007\r\nnext \ud83e line\u{ffff}\t日本';
        const clean = 'Käse & <b>"bread"</b> ]]> 🧀\ufffd\ufffd\nnext \ufffd line\ufffd\t日本';
        const bytes = await encode(full({ prompt, negativePrompt: undefined }));
        expect((await readParameters(bytes))?.split('\nSteps: ')[0]).toBe(clean);
        expect(await xmpProperty(bytes, 'AIPromptInformation')).toBe(clean);
      });

      it('holds the longest texts, or their beginning if a segment is too small', async () => {
        const long = full({
          prompt: '&'.repeat(40_000),
          negativePrompt: '🧀'.repeat(20_000),
          promptWeights: '"'.repeat(40_000),
        });
        const bytes = await encode(long);
        const told = (await readParameters(bytes)) ?? '';
        expect(told).toContain('Seed: 123456789');
        expect(told.startsWith('&'.repeat(7499))).toBe(true);
        expect(told.includes('…')).toBe(format !== 'png');
        expect(told).not.toContain('\ufffd');
        expect(await xmpProperty(bytes, 'DigitalSourceType')).toBe(MARK);
        expect(await xmpProperty(bytes, 'AIPromptInformation')).toBe(
          `${'&'.repeat(5999)}…\nNegative prompt: ${'🧀'.repeat(2999)}…`,
        );
      });

      it('keeps an odd number of bytes whole', async () => {
        for (const prompt of ['a', 'ab', 'abc']) {
          expect(await readParameters(await encode(full({ prompt, negativePrompt: '' })))).toMatch(
            `${prompt}\nSteps: 25`,
          );
        }
      });
    });
  }

  it('quotes values that would break the line of settings', async () => {
    const weights = { promptWeights: '(best quality:1.2), sky++', referenceStrength: 0.85 };
    const { bytes } = await encodeImage(rgb, size, { format: 'png', metadata: full(weights) });
    expect(await readParameters(bytes)).toContain(
      'Model: sdxl, Prompt weights: "(best quality:1.2), sky++", Reference strength: 0.85, Version: darkroom 1.2.3',
    );
  });

  it('precedes the pixels of a PNG: plain text if it is ASCII, otherwise UTF-8', async () => {
    const typesOf = async (prompt: string) =>
      pngChunks((await encodeImage(rgb, size, { format: 'png', metadata: full({ prompt }) })).bytes).map(
        ({ type }) => type,
      );
    expect((await typesOf('a kite')).slice(0, 3)).toEqual(['IHDR', 'tEXt', 'iTXt']);
    expect((await typesOf('a kité')).slice(0, 3)).toEqual(['IHDR', 'iTXt', 'iTXt']);
  });
});

async function meanDifference(bytes: Uint8Array): Promise<number> {
  const decoded = await sharp(bytes).raw().toBuffer();
  return decoded.reduce((sum, value, i) => sum + Math.abs(value - (rgb[i] ?? 0)), 0) / decoded.length;
}
