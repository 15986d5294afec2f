/**
 * The key layout that SDXL was published in and checkpoint sites ship: one file, `model.diffusion_model.*`,
 * `conditioner.embedders.*`, `first_stage_model.*`. Its names are translated here, once, to the ones the graphs are written in;
 * what is stored otherwise (fused projections, transposed ones, 1x1 convolutions) becomes a view of the same bytes.
 *
 * https://github.com/Stability-AI/generative-models/blob/main/configs/inference/sd_xl_base.yaml
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/loaders/single_file_utils.py#L1159
 */
import type { TensorRecord } from '../../../weights/safetensors.js';
import { renamed, third, type WeightRecord } from '../../../weights/weight-files.js';

type Tensors = ReadonlyMap<string, TensorRecord>;
type Translated = ReadonlyMap<string, WeightRecord>;

/** `input_blocks.0.0.weight`, … -> `conv_in.weight`, …. Names that are not understood stay as they are. */
export function translateUNet(tensors: Tensors): Translated {
  const places = blockPlaces(tensors);
  return renamed(tensors, (key) => {
    const fixed =
      /^(time_embed\.0|time_embed\.2|label_emb\.0\.0|label_emb\.0\.2|input_blocks\.0\.0|out\.0|out\.2)\.(.*)$/.exec(
        key,
      );
    if (fixed) return `${UNET_ENDS[fixed[1] ?? '']}.${fixed[2]}`;
    const [, side = '', block = '', part = '', rest = ''] =
      /^(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.*)$/.exec(key) ??
      /^(middle_block)\.()(\d+)\.(.*)$/.exec(key) ??
      [];
    if (side === 'middle_block') {
      return part === '1' ? `mid_block.attentions.0.${rest}` : `mid_block.resnets.${Number(part) / 2}.${resnet(rest)}`;
    }
    const place = places.get(`${side}.${block}`);
    if (place === undefined) return key;
    if (rest.startsWith('op.')) return `${place.block}.downsamplers.0.conv.${rest.slice('op.'.length)}`;
    if (rest.startsWith('conv.')) return `${place.block}.upsamplers.0.${rest}`;
    return part === '0'
      ? `${place.block}.resnets.${place.layer}.${resnet(rest)}`
      : `${place.block}.attentions.${place.layer}.${rest}`;
  });
}

/** `decoder.up.3.block.0.conv1.weight`, … -> `decoder.up_blocks.0.resnets.0.conv1.weight`, …. */
export function translateVae(tensors: Tensors): Translated {
  const last = Math.max(0, ...[...tensors.keys()].map((key) => Number(/^decoder\.up\.(\d+)\./.exec(key)?.[1] ?? 0)));
  const names = renamed(tensors, (key) =>
    key
      .replace(/\.down\.(\d+)\.block\.(\d+)\./, '.down_blocks.$1.resnets.$2.')
      .replace(/\.down\.(\d+)\.downsample\./, '.down_blocks.$1.downsamplers.0.')
      .replace(/\.up\.(\d+)\.block\.(\d+)\./, (_, i, j) => `.up_blocks.${last - Number(i)}.resnets.${j}.`)
      .replace(/\.up\.(\d+)\.upsample\./, (_, i) => `.up_blocks.${last - Number(i)}.upsamplers.0.`)
      .replace(/\.mid\.block_(\d)\./, (_, i) => `.mid_block.resnets.${Number(i) - 1}.`)
      .replace(/\.mid\.attn_1\.(norm|q|k|v|proj_out)\./, (_, part) => `.mid_block.attentions.0.${VAE_ATTENTION[part]}.`)
      .replace('.norm_out.', '.conv_norm_out.')
      .replace('.nin_shortcut.', '.conv_shortcut.'),
  );
  // The attention's projections are stored as 1x1 convolutions and serve as linears.
  const isProjection = (key: string) => /\.attentions\.0\.to_(q|k|v|out\.0)\.weight$/.test(key);
  return new Map([...names].map(([key, record]) => [key, isProjection(key) ? withoutTrailingOnes(record) : record]));
}

/** OpenCLIP's text tower -> transformers' names: `in_proj` is cut in three, a bare projection is read transposed. */
export function translateOpenClip(tensors: Tensors): Translated {
  const translated = new Map<string, WeightRecord>();
  for (const [key, record] of tensors) {
    const layer = /^transformer\.resblocks\.(\d+)\.(.*)$/.exec(key);
    if (layer === null) {
      const [stem = '', kind] = key.split(/\.(weight|bias)$/);
      const name = OPEN_CLIP_ENDS[stem];
      if (name === undefined) translated.set(key, record);
      // A bare matrix is OpenCLIP's parameter, [width, projection]; with `.weight` it is a Linear's own orientation.
      else if (key === 'text_projection') translated.set(`${name}.weight`, transposed(record));
      else translated.set(stem === 'positional_embedding' ? name : `${name}.${kind}`, record);
      continue;
    }
    const [, i, rest = ''] = layer;
    const at = `text_model.encoder.layers.${i}`;
    const fused = /^attn\.in_proj_(weight|bias)$/.exec(rest);
    if (fused) {
      for (const [part, name] of ['q_proj', 'k_proj', 'v_proj'].entries())
        translated.set(`${at}.self_attn.${name}.${fused[1]}`, third(record, part));
    } else {
      const [stem = '', kind] = rest.split(/\.(weight|bias)$/);
      translated.set(`${at}.${OPEN_CLIP_LAYER[stem] ?? stem}.${kind}`, record);
    }
  }
  return translated;
}

const UNET_ENDS: Readonly<Record<string, string>> = {
  'time_embed.0': 'time_embedding.linear_1',
  'time_embed.2': 'time_embedding.linear_2',
  'label_emb.0.0': 'add_embedding.linear_1',
  'label_emb.0.2': 'add_embedding.linear_2',
  'input_blocks.0.0': 'conv_in',
  'out.0': 'conv_norm_out',
  'out.2': 'conv_out',
};

const RESNET: readonly (readonly [from: string, to: string])[] = [
  ['in_layers.0.', 'norm1.'],
  ['in_layers.2.', 'conv1.'],
  ['emb_layers.1.', 'time_emb_proj.'],
  ['out_layers.0.', 'norm2.'],
  ['out_layers.3.', 'conv2.'],
  ['skip_connection.', 'conv_shortcut.'],
];

const VAE_ATTENTION: Readonly<Record<string, string>> = {
  norm: 'group_norm',
  q: 'to_q',
  k: 'to_k',
  v: 'to_v',
  proj_out: 'to_out.0',
};

const OPEN_CLIP_ENDS: Readonly<Record<string, string>> = {
  token_embedding: 'text_model.embeddings.token_embedding',
  positional_embedding: 'text_model.embeddings.position_embedding.weight',
  ln_final: 'text_model.final_layer_norm',
  text_projection: 'text_projection',
};

const OPEN_CLIP_LAYER: Readonly<Record<string, string>> = {
  ln_1: 'layer_norm1',
  ln_2: 'layer_norm2',
  'attn.out_proj': 'self_attn.out_proj',
  'mlp.c_fc': 'mlp.fc1',
  'mlp.c_proj': 'mlp.fc2',
};

function resnet(rest: string): string {
  const [from, to] = RESNET.find(([prefix]) => rest.startsWith(prefix)) ?? ['', ''];
  return to + rest.slice(from.length);
}

interface Place {
  /** `down_blocks.1` */
  readonly block: string;
  readonly layer: number;
}

/** The blocks are numbered through; a downsampler (`op`) ends a level, and the way up has one layer more for each. */
function blockPlaces(tensors: Tensors): ReadonlyMap<string, Place> {
  const places = new Map<string, Place>();
  const layers = [0];
  for (
    let n = 1;
    tensors.has(`input_blocks.${n}.0.op.weight`) || tensors.has(`input_blocks.${n}.0.in_layers.0.weight`);
    n += 1
  ) {
    const level = layers.length - 1;
    const layer = layers[level] ?? 0;
    places.set(`input_blocks.${n}`, { block: `down_blocks.${level}`, layer });
    if (tensors.has(`input_blocks.${n}.0.op.weight`)) layers.push(0);
    else layers[level] = layer + 1;
  }
  let n = 0;
  for (const [block, count] of layers.reverse().entries()) {
    for (let layer = 0; layer <= count; layer += 1, n += 1) {
      places.set(`output_blocks.${n}`, { block: `up_blocks.${block}`, layer });
    }
  }
  return places;
}

function transposed(record: TensorRecord): WeightRecord {
  return { ...record, shape: [...record.shape].reverse(), isTransposed: true };
}

function withoutTrailingOnes(record: WeightRecord): WeightRecord {
  const [outputs = 0, inputs = 0, ...kernel] = record.shape;
  return kernel.every((size) => size === 1) ? { ...record, shape: [outputs, inputs] } : record;
}
