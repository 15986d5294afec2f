import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { type Reference, ReferenceRole, ReferenceType } from '../../src/gen/darkroom/v1/job.js';
import { metadataOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

const SIZE = 64;
let serving: Serving;
let photo: Buffer;
let leftHalf: Buffer;
beforeAll(async () => {
  serving = await serve({}, { withWan: true });
  // Every pixel is another one, so that a kept one is known.
  const pixels = Uint8Array.from({ length: SIZE * SIZE * 3 }, (_, i) => (i * 37) % 251);
  photo = await sharp(pixels, { raw: { width: SIZE, height: SIZE, channels: 3 } })
    .png()
    .toBuffer();
  const mask = Uint8Array.from({ length: SIZE * SIZE }, (_, i) => (i % SIZE < SIZE / 2 ? 255 : 0));
  leftHalf = await sharp(mask, { raw: { width: SIZE, height: SIZE, channels: 1 } })
    .png()
    .toBuffer();
});
afterAll(() => serving.stop());

const reference = (value: Buffer, more: Partial<Reference> = {}): Reference => ({
  source: { $case: 'image', value },
  type: ReferenceType.REFERENCE_TYPE_UNSPECIFIED,
  role: ReferenceRole.REFERENCE_ROLE_UNSPECIFIED,
  strength: undefined,
  denoisingStrength: undefined,
  ...more,
});

const inpaint = (more: Partial<GenerateRequest> = {}) =>
  outcomeOf(serving.client, {
    ...quick,
    steps: 6,
    width: SIZE,
    height: SIZE,
    references: [reference(photo)],
    mask: { source: { $case: 'image', value: leftHalf }, blur: 0 },
    ...more,
  });

/** Number of pixels of a half that are not those of the photo. */
async function changed(file: Buffer | undefined, half: 'left' | 'right'): Promise<number> {
  const [now, before] = await Promise.all([file, photo].map((image) => sharp(image).raw().toBuffer()));
  let count = 0;
  for (let i = 0; i < SIZE * SIZE; i += 1) {
    if (i % SIZE < SIZE / 2 !== (half === 'left')) continue;
    if ([0, 1, 2].some((channel) => now?.[3 * i + channel] !== before?.[3 * i + channel])) count += 1;
  }
  return count;
}

describe('inpainting', () => {
  it('draws the masked part alone where it is asked to, and keeps the rest', async () => {
    const levels = Uint8Array.from({ length: SIZE * SIZE }, (_, i) => (i % SIZE < 16 && i < 16 * SIZE ? 255 : 0));
    const corner = await sharp(levels, { raw: { width: SIZE, height: SIZE, channels: 1 } })
      .png()
      .toBuffer();
    const mask = { source: { $case: 'image', value: corner } as const, blur: 0, cropPadding: 4 };
    const [whole, part] = [await inpaint({ mask: { ...mask, cropPadding: undefined } }), await inpaint({ mask })];
    expect(await changed(part.files[0], 'right')).toBe(0);
    expect(part.files[0]).not.toEqual(whole.files[0]);
    const { error } = await inpaint({ mask: { ...mask, cropPadding: 513 } });
    expect(error?.message).toContain('mask.crop_padding 513 must be >= 0 and <= 512');
  });

  it('draws the masked part anew and leaves every other pixel as it was', async () => {
    const outcome = await inpaint();
    expect(metadataOf(outcome)).toMatchObject({
      referenceMethod: 'inpaint',
      referenceApplied: true,
      denoisingStrength: 1,
    });
    const [file] = outcome.files;
    expect(await changed(file, 'right')).toBe(0);
    expect(await changed(file, 'left')).toBeGreaterThan((SIZE * SIZE) / 4);
  });

  it('makes the images of a batch as it makes each alone', async () => {
    const three = await inpaint({ numImages: 3, seed: 5n });
    const alone = await Promise.all([5n, 6n, 7n].map((seed) => inpaint({ seed })));
    expect(three.files).toEqual(alone.map(({ files }) => files[0]));
  });

  it('fails with a sentence about the mask where that cannot be decoded', async () => {
    const { error } = await inpaint({ mask: { source: { $case: 'image', value: Buffer.from('%PDF-1.7') }, blur: 0 } });
    expect([error?.reason, error?.message]).toEqual(['REFERENCE_INVALID', expect.stringMatching(/^the mask is a PDF/)]);
  });

  it('keeps more of the masked part at a smaller strength', async () => {
    const [weak, strong] = await Promise.all(
      [0.2, 1].map((denoisingStrength) => inpaint({ references: [reference(photo, { denoisingStrength })] })),
    );
    expect(metadataOf(weak as never).denoisingStrength).toBeCloseTo(1 / 6, 6);
    expect(weak?.files[0]).not.toEqual(strong?.files[0]);
    expect(await changed(weak?.files[0], 'right')).toBe(0);
  });

  it('blends over a blurred mask', async () => {
    const { files } = await inpaint({ mask: { source: { $case: 'image', value: leftHalf }, blur: 4 } });
    const right = await changed(files[0], 'right');
    expect(right).toBeGreaterThan(0);
    expect(right).toBeLessThan((SIZE * SIZE) / 2);
  });

  it.each([
    [{ references: [] }, /mask needs one reference/],
    [{ mask: { source: undefined, blur: 0 } }, /mask must have an image or a url/],
    [{ mask: { source: { $case: 'image' as const, value: Buffer.from('x') }, blur: 65 } }, /mask.blur 65 must be/],
    [{ model: 'wan', width: 64, height: 64 }, /mask is not for models of the family wan/],
  ])('refuses %o in one sentence', async (more, message) => {
    const { error } = await inpaint(more);
    expect(error).toMatchObject({ reason: 'INVALID_REQUEST' });
    expect(error?.message).toMatch(message);
  });
});
