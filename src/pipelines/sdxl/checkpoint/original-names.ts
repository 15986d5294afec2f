/** Writes the original key layout from diffusers' names: the inverse of original-layout.ts. */
import type { ComponentName } from './checkpoint.js';

type Tensor = readonly [name: string, shape: readonly number[]];

/** @param plan names and shapes of all parts, as diffusers has them */
export function originalTensors(plan: Readonly<Record<ComponentName, readonly Tensor[]>>): readonly Tensor[] {
  const vaeLevels = 1 + Math.max(...plan.vae.map(([name]) => Number(/up_blocks\.(\d+)/.exec(name)?.[1] ?? 0)));
  const unetNames = originalUNetNames(plan.unet.map(([name]) => name));
  return [
    ...plan.unet.map(([name, shape]): Tensor => [`model.diffusion_model.${unetNames.get(name)}`, shape]),
    ...plan.text_encoder.map(([name, shape]): Tensor => [`conditioner.embedders.0.transformer.${name}`, shape]),
    ...openClipTensors(plan.text_encoder_2).map(
      ([name, shape]): Tensor => [`conditioner.embedders.1.model.${name}`, shape],
    ),
    ...plan.vae.map(
      ([name, shape]): Tensor => [
        `first_stage_model.${vaeName(name, vaeLevels)}`,
        /\.attentions\.0\.to_.*weight$/.test(name) ? [...shape, 1, 1] : shape,
      ],
    ),
  ];
}

/** The original layout's name of each tensor of a UNet. @param names all of them, in diffusers' names */
export function originalUNetNames(names: readonly string[]): ReadonlyMap<string, string> {
  const levels = 1 + Math.max(...names.map((name) => Number(/^down_blocks\.(\d+)/.exec(name)?.[1] ?? 0)));
  const layers = Array.from({ length: levels }, (_, i) => {
    const pattern = new RegExp(`^down_blocks\\.${i}\\.resnets\\.(\\d+)`);
    return new Set(names.flatMap((name) => pattern.exec(name)?.[1] ?? [])).size;
  });
  return new Map(names.map((name) => [name, unetName(name, layers)]));
}

function unetName(name: string, layers: readonly number[]): string {
  const ends: readonly (readonly [string, string])[] = [
    ['time_embedding.linear_1.', 'time_embed.0.'],
    ['time_embedding.linear_2.', 'time_embed.2.'],
    ['add_embedding.linear_1.', 'label_emb.0.0.'],
    ['add_embedding.linear_2.', 'label_emb.0.2.'],
    ['conv_in.', 'input_blocks.0.0.'],
    ['conv_norm_out.', 'out.0.'],
    ['conv_out.', 'out.2.'],
    ['mid_block.resnets.0.', 'middle_block.0.'],
    ['mid_block.attentions.0.', 'middle_block.1.'],
    ['mid_block.resnets.1.', 'middle_block.2.'],
  ];
  const end = ends.find(([from]) => name.startsWith(from));
  if (end !== undefined) return end[1] + resnetName(name.slice(end[0].length));
  const [, side, block = '', kind, item = '', rest = ''] =
    /^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)$/.exec(name) ?? [];
  const i = Number(block);
  const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);
  if (side === 'down') {
    const first = 1 + sum(layers.slice(0, i)) + i;
    if (kind === 'downsamplers') return `input_blocks.${first + (layers[i] ?? 0)}.0.op.${rest.slice('conv.'.length)}`;
    return `input_blocks.${first + Number(item)}.${kind === 'resnets' ? `0.${resnetName(rest)}` : `1.${rest}`}`;
  }
  const upwards = [...layers].reverse().map((count) => count + 1);
  const first = sum(upwards.slice(0, i));
  if (kind === 'upsamplers') {
    // Behind the attention, where the level has one: the outermost levels have none.
    return `output_blocks.${first + (upwards[i] ?? 0) - 1}.${i === layers.length - 1 ? 1 : 2}.${rest}`;
  }
  return `output_blocks.${first + Number(item)}.${kind === 'resnets' ? `0.${resnetName(rest)}` : `1.${rest}`}`;
}

function resnetName(rest: string): string {
  return rest
    .replace(/^norm1\./, 'in_layers.0.')
    .replace(/^conv1\./, 'in_layers.2.')
    .replace(/^time_emb_proj\./, 'emb_layers.1.')
    .replace(/^norm2\./, 'out_layers.0.')
    .replace(/^conv2\./, 'out_layers.3.')
    .replace(/^conv_shortcut\./, 'skip_connection.');
}

function vaeName(name: string, levels: number): string {
  return name
    .replace(/\.down_blocks\.(\d+)\.resnets\.(\d+)\./, '.down.$1.block.$2.')
    .replace(/\.down_blocks\.(\d+)\.downsamplers\.0\./, '.down.$1.downsample.')
    .replace(/\.up_blocks\.(\d+)\.resnets\.(\d+)\./, (_, i, j) => `.up.${levels - 1 - Number(i)}.block.${j}.`)
    .replace(/\.up_blocks\.(\d+)\.upsamplers\.0\./, (_, i) => `.up.${levels - 1 - Number(i)}.upsample.`)
    .replace(/\.mid_block\.resnets\.(\d)\./, (_, i) => `.mid.block_${Number(i) + 1}.`)
    .replace('.mid_block.attentions.0.group_norm.', '.mid.attn_1.norm.')
    .replace('.mid_block.attentions.0.to_out.0.', '.mid.attn_1.proj_out.')
    .replace(/\.mid_block\.attentions\.0\.to_(q|k|v)\./, '.mid.attn_1.$1.')
    .replace('.conv_norm_out.', '.norm_out.')
    .replace('.conv_shortcut.', '.nin_shortcut.');
}

function openClipTensors(tensors: readonly Tensor[]): readonly Tensor[] {
  return tensors.flatMap(([name, shape]): Tensor[] => {
    const layer = /^text_model\.encoder\.layers\.(\d+)\.(.*)$/.exec(name);
    if (layer === null) {
      if (name === 'text_projection.weight') return [['text_projection', [...shape].reverse()]];
      return [
        [
          name
            .replace('text_model.embeddings.token_embedding.', 'token_embedding.')
            .replace('text_model.embeddings.position_embedding.weight', 'positional_embedding')
            .replace('text_model.final_layer_norm.', 'ln_final.'),
          shape,
        ],
      ];
    }
    const at = `transformer.resblocks.${layer[1]}`;
    const rest = layer[2] ?? '';
    const [rows = 0, ...columns] = shape;
    // Three projections are one tensor there: the first of them stands for all.
    if (rest.startsWith('self_attn.q_proj.'))
      return [[`${at}.attn.in_proj_${rest.slice('self_attn.q_proj.'.length)}`, [3 * rows, ...columns]]];
    if (/^self_attn\.[kv]_proj\./.test(rest)) return [];
    return [
      [
        `${at}.${rest
          .replace('layer_norm1.', 'ln_1.')
          .replace('layer_norm2.', 'ln_2.')
          .replace('self_attn.', 'attn.')
          .replace('mlp.fc1.', 'mlp.c_fc.')
          .replace('mlp.fc2.', 'mlp.c_proj.')}`,
        shape,
      ],
    ];
  });
}
