import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NetworkOpener } from '../../../src/pipelines/common/network-opener.js';
import { readControlNetSummary } from '../../../src/pipelines/controlnets/controlnet-summary.js';
import { readEmbeddingSummary } from '../../../src/pipelines/embeddings/embedding-summary.js';
import { readEmbedding } from '../../../src/pipelines/embeddings/read-embedding.js';
import { openControlNet } from '../../../src/pipelines/sdxl/checkpoint/controlnet.js';
import { openImagePrompt } from '../../../src/pipelines/sdxl/checkpoint/ip-adapter.js';
import { readSdxlConfig } from '../../../src/pipelines/sdxl/checkpoint/read-config.js';
import { planUpscalerWeights, Upscaler } from '../../../src/pipelines/upscalers/upscaler.js';
import { readUpscalerSummary } from '../../../src/pipelines/upscalers/upscaler-summary.js';
import { writeSyntheticImageEncoder, writeSyntheticIpAdapter } from '../../../src/synthetic/ip-adapter.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { dict, pickle, pthBytes, tensor } from '../../support/pth-bytes.js';
import { safetensorsBytes } from '../../support/safetensors-bytes.js';
import { type FuzzedParser, f32, fileOf, hold, holdPlaces, root, zeros } from './parser.js';

const tinyConfig = readSdxlConfig(root('assets/tiny-sdxl'));
/** The smallest header that is taken for an SDXL's ControlNet in the original names. */
const controlNetSeed = () => {
  const names = [...[0, 2, 4, 6, 8, 10, 12, 14].map((i) => `input_hint_block.${i}`), 'label_emb.0.0', 'zero_convs.0.0'];
  const header = names.map((name, i) => [`control_model.${name}.weight`, f32([1], 4 * i, 4 * i + 4)]);
  return safetensorsBytes(Object.fromEntries(header), new Uint8Array(4 * names.length));
};

export const parsers: readonly FuzzedParser[] = [
  {
    name: 'embedding',
    seeds: async () => {
      const param = pickle(dict({ string_to_param: dict({ '*': tensor({ elements: 64, shape: [2, 32] }) }) }));
      return [
        safetensorsBytes({ clip_l: f32([2, 32], 0, 256), clip_g: f32([1, 48], 256, 448) }, new Uint8Array(448)),
        pthBytes(param, { 0: new Uint8Array(256) }),
      ];
    },
    async parse(bytes, folder) {
      const isZip = bytes.subarray(0, 2).toString('latin1') === 'PK';
      const path = await fileOf(bytes, folder, `ink.${isZip ? 'pt' : 'safetensors'}`);
      await readEmbeddingSummary(path);
      const { encoders } = await readEmbedding({ name: 'ink', path }, [32, 48]);
      for (const vectors of encoders) hold(vectors?.values.every(Number.isFinite) !== false, 'a vector of no numbers');
    },
  },
  {
    name: 'upscaler',
    seeds: async () => [
      zeros(planUpscalerWeights({ kind: 'compact', channels: 4, convolutions: 1, scale: 2 })),
      zeros(
        planUpscalerWeights({
          ...{ kind: 'esrgan', channels: 4, growth: 2, blocks: 1 },
          ...{ doublings: 1, unshuffle: 1, scale: 2 },
        }),
      ),
    ],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'x2.safetensors');
      const { scale } = await readUpscalerSummary(path);
      hold(scale >= 1 && scale <= 8, 'an upscaler of an odd scale');
      await (await Upscaler.open(path, new NetworkOpener(cpuBackend, []))).release();
    },
  },
  {
    name: 'controlnet',
    seeds: async () => [controlNetSeed()],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'depth.safetensors');
      await readControlNetSummary(path);
      const { files } = await openControlNet(path, await tinyConfig);
      await holdPlaces(path, files.tensors.values());
    },
  },
  {
    name: 'ip adapter',
    async seeds(folder) {
      const path = join(folder, 'seed.safetensors');
      const seeds: Buffer[] = [];
      await writeSyntheticImageEncoder(join(folder, 'image-encoder'), 'clip-image-encoder-tiny');
      for (const size of ['sdxl-ip-adapter-tiny', 'sdxl-ip-adapter-plus-tiny'] as const) {
        await writeSyntheticIpAdapter(path, size);
        seeds.push(await readFile(path));
      }
      return seeds;
    },
    async parse(bytes, folder) {
      const adapter = await fileOf(bytes, folder, 'adapter.safetensors');
      const encoder = join(folder, 'image-encoder');
      const { attention, files } = await openImagePrompt({ adapter, encoder }, (await tinyConfig).unet);
      await holdPlaces(adapter, [...attention.values(), ...files.image_projection.tensors.values()]);
    },
  },
];
