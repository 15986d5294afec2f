import { readLoraSummary } from '../../../src/pipelines/lora/lora-summary.js';
import { readLora } from '../../../src/pipelines/lora/read-lora.js';
import { readSdxlConfig } from '../../../src/pipelines/sdxl/checkpoint/read-config.js';
import { sdxlLoraNames } from '../../../src/pipelines/sdxl/lora-names.js';
import { safetensorsBytes } from '../../support/safetensors-bytes.js';
import { type FuzzedParser, f32, fileOf, hold, root, zeros } from './parser.js';

const loraSeed = () => {
  const module = 'unet.mid_block.attentions.0.proj_in';
  const settings = { 'unet.r': 1, 'unet.lora_alpha': 2, 'unet.alpha_pattern': { proj_in: 3 } };
  const header = {
    __metadata__: { lora_adapter_metadata: JSON.stringify(settings), ss_tag_frequency: '{"a":{"red":2}}' },
    [`${module}.lora_A.weight`]: f32([1, 128], 0, 512),
    [`${module}.lora_B.weight`]: f32([128, 1], 512, 1024),
    [`${module}.alpha`]: f32([], 1024, 1028),
    [`${module}.diff_b`]: f32([128], 1028, 1540),
  };
  return safetensorsBytes(header, new Uint8Array(1540));
};

/** The methods beside LoRA: DoRA, LoHa and LoKr, each over one module. */
const methodsSeed = () => {
  const [dora, loha, lokr] = ['0', '1', '2'].map(
    (i) => `unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_${'qkv'[+i]}`,
  );
  const shapes: readonly (readonly [name: string, shape: readonly number[]])[] = [
    [`${dora}.lora_A.weight`, [1, 128]],
    [`${dora}.lora_B.weight`, [128, 1]],
    [`${dora}.lora_magnitude_vector`, [128]],
    ...['w1', 'w2'].flatMap((w): [string, number[]][] => [
      [`${loha}.hada_${w}_a`, [128, 1]],
      [`${loha}.hada_${w}_b`, [1, 128]],
    ]),
    [`${lokr}.lokr_w1`, [2, 2]],
    [`${lokr}.lokr_w2_a`, [64, 1]],
    [`${lokr}.lokr_w2_b`, [1, 64]],
  ];
  return zeros(shapes);
};

const tinyConfig = readSdxlConfig(root('assets/tiny-sdxl'));
const loraNames = tinyConfig.then(sdxlLoraNames);

export const parsers: readonly FuzzedParser[] = [
  {
    name: 'lora',
    seeds: async () => [loraSeed(), methodsSeed()],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'lora.safetensors');
      await readLoraSummary(path);
      const { updates } = await readLora(path, await loraNames);
      for (const { update } of updates) hold(Number.isFinite(update.scale), 'a LoRA without a finite scale');
    },
  },
];
