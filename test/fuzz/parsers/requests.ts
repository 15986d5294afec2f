import sharp from 'sharp';
import { contractJobTypes } from '../../../src/job-types.js';
import { decodeReference } from '../../../src/media/decode-reference.js';
import { readPayload } from '../../../src/queue-bridge/payload/payload.js';
import { type FuzzedParser, hold } from './parser.js';

export const parsers: readonly FuzzedParser[] = [
  {
    name: 'image',
    seeds: async () => {
      const image = () =>
        sharp({ create: { width: 24, height: 16, channels: 4, background: { r: 200, g: 30, b: 60, alpha: 0.5 } } });
      return [
        await image().png().toBuffer(),
        await image().jpeg({ progressive: true }).toBuffer(),
        await image().webp().toBuffer(),
      ];
    },
    async parse(bytes) {
      const { rgb } = await decodeReference(bytes, { width: 32, height: 32, maxPixels: 50_000_000 });
      hold(rgb.length === 32 * 32 * 3, 'an image of another size');
    },
  },
  {
    name: 'payload',
    seeds: async () => [
      Buffer.from(
        JSON.stringify({
          id: 'job-1',
          type: 'sdxl_image_fast_1x',
          prompt: 'a red circle',
          user_id: 'user-1',
          compel_enabled: true,
          compel_weights: '(red)1.2',
          config: { num_images: 1, seed: 7, steps: 4, guidance_scale: 2.5, scheduler: 'euler', width: 64, height: 64 },
          metadata: { reference_type: 'style', reference_strength: 0.5, start_reference_url: '' },
        }),
      ),
    ],
    async parse(bytes) {
      const read = readPayload(bytes.toString('utf8'), { jobTypes: contractJobTypes });
      hold(typeof read === 'object' && read !== null, 'a payload that is read as nothing');
    },
  },
];
