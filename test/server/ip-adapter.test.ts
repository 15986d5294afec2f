import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { OutputMetadata, type Reference, ReferenceRole, ReferenceType } from '../../src/gen/darkroom/v1/job.js';
import { writeSyntheticImageEncoder, writeSyntheticIpAdapter } from '../../src/synthetic/ip-adapter.js';
import { gradient } from '../support/image.js';
import { sdxlImage } from '../support/sdxl-image.js';
import { metadataOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

const { REFERENCE_TYPE_STYLE: STYLE, REFERENCE_TYPE_CHARACTER: CHARACTER } = ReferenceType;
/** Wider than the images of the jobs: the server must not crop it to their shape. */
const size = { width: 96, height: 48 };
const rgb = gradient(size);
const png = await sharp(rgb, { raw: { ...size, channels: 3 } })
  .png()
  .toBuffer();

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await writeSyntheticImageEncoder(join(folder, 'encoder'), 'clip-image-encoder-tiny');
  await writeSyntheticIpAdapter(join(folder, 'plus.safetensors'), 'sdxl-ip-adapter-plus-tiny');
  serving = await serve({
    SDXL_PATH: inject('wholeSdxl'),
    SDXL_IP_ADAPTER: join(folder, 'plus.safetensors'),
    SDXL_IP_ADAPTER_ENCODER: join(folder, 'encoder'),
  });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

const reference = (type: ReferenceType, more: Partial<Reference> = {}): Reference => ({
  ...{ source: { $case: 'image', value: png }, type, role: ReferenceRole.REFERENCE_ROLE_UNSPECIFIED },
  ...{ strength: undefined, denoisingStrength: undefined },
  ...more,
});
const bare = { ...quick, seed: 3n, guidanceScale: 5, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
const outcome = (request: object) => outcomeOf(serving.client, { ...bare, ...request });

describe('a server with an IP-Adapter', () => {
  it.each([
    ['style', STYLE, 0.8],
    ['character', CHARACTER, undefined],
  ])('applies a reference of the type %s by it, with its strength as the scale', async (_, type, strength) => {
    const made = await outcome({ references: [reference(type, { strength })] });
    expect(metadataOf(made)).toMatchObject({
      ...{ referenceMethod: 'ip_adapter', referenceApplied: true, referenceMode: 'single' },
      ...{ referenceStrength: strength ?? 0.5, denoisingStrength: undefined },
    });
    const alone = await sdxlImage(
      {
        path: inject('wholeSdxl'),
        ipAdapter: join(folder, 'plus.safetensors'),
        ipAdapterEncoder: join(folder, 'encoder'),
      },
      { imagePrompt: { rgb, ...size, scale: strength ?? 0.5 } },
    );
    expect(new Uint8Array(await sharp(made.files[0]).raw().toBuffer())).toEqual(alone);
  });

  const mask = { source: { $case: 'image', value: png }, blur: 0, cropPadding: undefined };
  it.each([
    ['a composition', reference(ReferenceType.REFERENCE_TYPE_COMPOSITION), {}, 'img2img'],
    ['a reference without a type', reference(ReferenceType.REFERENCE_TYPE_UNSPECIFIED), {}, 'img2img'],
    ['a style with a denoising strength', reference(STYLE, { denoisingStrength: 0.5 }), {}, 'img2img'],
    ['a style with a mask', reference(STYLE), { mask }, 'inpaint'],
  ])('starts from %s', async (_, each, more, method) => {
    const made = await outcome({ references: [each], ...more });
    expect(metadataOf(made)).toMatchObject({ referenceMethod: method, referenceApplied: true });
    expect(metadataOf(made).denoisingStrength).toBeGreaterThan(0);
  });

  it('runs all steps on such a reference, which a weak image to image could not', async () => {
    const made = await outcome({ steps: 1, references: [reference(CHARACTER, { strength: 1 })] });
    expect(made.error).toBeUndefined();
    expect(made.files).toHaveLength(1);
  });
});
