/**
 * The key layouts that WAN was published in and that ComfyUI repackages: transformer, `Wan2.1_VAE`, `Wan2.2_VAE`, `models_t5_umt5-xxl-enc`
 * and `models_clip_open-clip-xlm-roberta-large-vit-huge-14`. Their names are translated here, once, to the ones the graphs are written in. Every tensor is stored
 * as diffusers stores it; only the names differ.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/loaders/single_file_utils.py#L3182
 */
import { below, renamed, third, type WeightFiles, type WeightRecord } from '../../../weights/weight-files.js';

type Tensors = WeightFiles['tensors'];

/** Prefix of a transformer's names in files that ComfyUI saved. */
const COMFY_PREFIX = 'model.diffusion_model.';

const BLOCK_KEY = /^((?:vace_)?blocks\.\d+)\.(.*)$/;

/** The transformer's tensors without a prefix. */
export function withoutPrefix(tensors: Tensors): Tensors {
  const own = below(tensors, COMFY_PREFIX);
  return own.size > 0 ? own : tensors;
}

/** `blocks.0.self_attn.q.weight`, … -> `blocks.0.attn1.to_q.weight`, …; VACE's blocks likewise. Names that are not understood stay as they are. */
export function translateTransformer(tensors: Tensors): Tensors {
  return renamed(tensors, (key) => {
    const [, block, rest] = BLOCK_KEY.exec(key) ?? [];
    return rest === undefined ? replaced(key, ENDS) : `${block}.${replaced(rest, BLOCK)}`;
  });
}

/** The other way: what the original code calls a tensor of the transformer. */
export function originalTransformerName(key: string): string {
  const back = (names: Names) => names.map(([from, to]) => [to, from] as const);
  const [, block, rest] = BLOCK_KEY.exec(key) ?? [];
  return rest === undefined ? replaced(key, back(ENDS)) : `${block}.${replaced(rest, back(BLOCK))}`;
}

/**
 * `decoder.upsamples.4.residual.2.weight`, … -> `decoder.up_blocks.1.resnets.0.conv1.weight`, …; of WAN 2.2, whose blocks are not
 * numbered through, `decoder.upsamples.1.upsamples.0.residual.2.weight`, … likewise.
 */
export function translateVae(tensors: Tensors): Tensors {
  const places = upPlaces(tensors);
  return renamed(tensors, (key) => {
    const nested = nestedName(key);
    if (nested !== undefined) return nested;
    const [, layer, rest] = /^(decoder\.upsamples\.\d+)\.(.*)$/.exec(key) ?? [];
    const place = layer === undefined ? undefined : places.get(layer);
    if (place !== undefined && rest !== undefined) return `${place}.${replaced(rest, RESNET)}`;
    const [, middle, part, inner = ''] = /^((?:en|de)coder)\.middle\.(\d)\.(.*)$/.exec(key) ?? [];
    if (middle !== undefined) return `${middle}.mid_block.${MIDDLE[part ?? ''] ?? part}.${replaced(inner, RESNET)}`;
    const [, down, below] = /^encoder\.downsamples\.(\d+)\.(.*)$/.exec(key) ?? [];
    if (below !== undefined) return `encoder.down_blocks.${down}.${replaced(below, RESNET)}`;
    return replaced(key, VAE_ENDS);
  });
}

/** The layers of WAN 2.2's VAE are numbered in each block; the last one of a block changes the size. */
function nestedName(key: string): string | undefined {
  const [, side, block, layer, rest = ''] =
    /^(en|de)coder\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.*)$/.exec(key) ?? [];
  if (side === undefined) return undefined;
  const way = side === 'en' ? 'down' : 'up';
  const part = /^(resample|time_conv)\./.test(rest) ? `${way}sampler` : `resnets.${layer}`;
  return `${side}coder.${way}_blocks.${block}.${part}.${replaced(rest, RESNET)}`;
}

/**
 * `blocks.0.attn.q.weight`, … -> `encoder.block.0.layer.0.SelfAttention.q.weight`, … of transformers' UMT5; `enc.blk.0.attn_q.weight`, …
 * of llama.cpp's GGUF files likewise.
 */
export function translateTextEncoder(tensors: Tensors): Tensors {
  return renamed(tensors, (key) => {
    const [, layer, part] = /^enc\.blk\.(\d+)\.(.*)$/.exec(key) ?? [];
    if (part !== undefined) return `encoder.block.${layer}.${replaced(part, GGUF_TEXT_BLOCK)}`;
    const [, block, rest] = /^blocks\.(\d+)\.(.*)$/.exec(key) ?? [];
    return rest === undefined ? replaced(key, TEXT_ENDS) : `encoder.block.${block}.${replaced(rest, TEXT_BLOCK)}`;
  });
}

/** `visual.transformer.0.attn.to_qkv.weight`, … of the original code -> `encoder.layers.0.self_attn.q_proj.weight`, … */
export function translateImageEncoder(tensors: Tensors): Tensors {
  const translated = new Map<string, WeightRecord>();
  for (const [key, record] of below(tensors, 'visual.')) {
    const [, i, rest = ''] = /^transformer\.(\d+)\.(.*)$/.exec(key) ?? [];
    const [, kind] = /^attn\.to_qkv\.(weight|bias)$/.exec(rest) ?? [];
    if (kind !== undefined) {
      for (const [part, name] of ['q_proj', 'k_proj', 'v_proj'].entries())
        translated.set(`encoder.layers.${i}.self_attn.${name}.${kind}`, third(record, part));
    } else if (i !== undefined) translated.set(`encoder.layers.${i}.${replaced(rest, IMAGE_LAYER)}`, record);
    else translated.set(replaced(key, IMAGE_ENDS), withoutLeadingOnes(record));
  }
  return translated;
}

/** [1, 1, C] -> [C], [1, T, C] -> [T, C]: embeddings are stored as they are added. */
function withoutLeadingOnes(record: WeightRecord): WeightRecord {
  const first = record.shape.findIndex((size) => size !== 1);
  return first > 0 ? { ...record, shape: record.shape.slice(first) } : record;
}

type Names = readonly (readonly [from: string, to: string])[];

const ENDS: Names = [
  ['time_embedding.0.', 'condition_embedder.time_embedder.linear_1.'],
  ['time_embedding.2.', 'condition_embedder.time_embedder.linear_2.'],
  ['time_projection.1.', 'condition_embedder.time_proj.'],
  ['text_embedding.0.', 'condition_embedder.text_embedder.linear_1.'],
  ['text_embedding.2.', 'condition_embedder.text_embedder.linear_2.'],
  ['head.head.', 'proj_out.'],
  ['head.modulation', 'scale_shift_table'],
  // Models that take images only.
  ['img_emb.proj.0.', 'condition_embedder.image_embedder.norm1.'],
  ['img_emb.proj.1.', 'condition_embedder.image_embedder.ff.net.0.proj.'],
  ['img_emb.proj.3.', 'condition_embedder.image_embedder.ff.net.2.'],
  ['img_emb.proj.4.', 'condition_embedder.image_embedder.norm2.'],
  ['img_emb.emb_pos', 'condition_embedder.image_embedder.pos_embed'],
];

const BLOCK: Names = [
  ['modulation', 'scale_shift_table'],
  ...(
    [
      ['self_attn.', 'attn1.'],
      ['cross_attn.', 'attn2.'],
    ] as const
  ).flatMap(
    ([from, to]): Names => [
      ...['q', 'k', 'v'].map((name) => [`${from}${name}.`, `${to}to_${name}.`] as const),
      [`${from}o.`, `${to}to_out.0.`],
      [`${from}k_img.`, `${to}add_k_proj.`],
      [`${from}v_img.`, `${to}add_v_proj.`],
      [`${from}norm_k_img.`, `${to}norm_added_k.`],
      [from, to],
    ],
  ),
  // The cross attention's norm: the other two have no weights.
  ['norm3.', 'norm2.'],
  ['ffn.0.', 'ffn.net.0.proj.'],
  ['ffn.2.', 'ffn.net.2.'],
  // VACE's blocks.
  ['before_proj.', 'proj_in.'],
  ['after_proj.', 'proj_out.'],
];

const RESNET: Names = [
  ['residual.0.', 'norm1.'],
  ['residual.2.', 'conv1.'],
  ['residual.3.', 'norm2.'],
  ['residual.6.', 'conv2.'],
  ['shortcut.', 'conv_shortcut.'],
];

const MIDDLE: Readonly<Record<string, string>> = { 0: 'resnets.0', 1: 'attentions.0', 2: 'resnets.1' };

const VAE_ENDS: Names = [
  ...['encoder.', 'decoder.'].flatMap(
    (side): Names => [
      [`${side}conv1.`, `${side}conv_in.`],
      [`${side}head.0.`, `${side}norm_out.`],
      [`${side}head.2.`, `${side}conv_out.`],
    ],
  ),
  ['conv1.', 'quant_conv.'],
  ['conv2.', 'post_quant_conv.'],
];

const TEXT_ENDS: Names = [
  ['token_embedding.', 'shared.'],
  ['norm.', 'encoder.final_layer_norm.'],
  ['token_embd.', 'shared.'],
  ['enc.output_norm.', 'encoder.final_layer_norm.'],
];

/** Names of a T5 encoder: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py (`MODEL_TENSOR.ENC_…`) */
const GGUF_TEXT_BLOCK: Names = [
  ['attn_norm.', 'layer.0.layer_norm.'],
  ['attn_rel_b.', 'layer.0.SelfAttention.relative_attention_bias.'],
  ...['q', 'k', 'v', 'o'].map((name) => [`attn_${name}.`, `layer.0.SelfAttention.${name}.`] as const),
  ['ffn_norm.', 'layer.1.layer_norm.'],
  ['ffn_gate.', 'layer.1.DenseReluDense.wi_0.'],
  ['ffn_up.', 'layer.1.DenseReluDense.wi_1.'],
  ['ffn_down.', 'layer.1.DenseReluDense.wo.'],
];

const TEXT_BLOCK: Names = [
  ['norm1.', 'layer.0.layer_norm.'],
  ['attn.', 'layer.0.SelfAttention.'],
  ['pos_embedding.embedding.', 'layer.0.SelfAttention.relative_attention_bias.'],
  ['norm2.', 'layer.1.layer_norm.'],
  ['ffn.gate.0.', 'layer.1.DenseReluDense.wi_0.'],
  ['ffn.fc1.', 'layer.1.DenseReluDense.wi_1.'],
  ['ffn.fc2.', 'layer.1.DenseReluDense.wo.'],
];

const IMAGE_ENDS: Names = [
  ['cls_embedding', 'embeddings.class_embedding'],
  ['pos_embedding', 'embeddings.position_embedding.weight'],
  ['patch_embedding.', 'embeddings.patch_embedding.'],
  ['pre_norm.', 'pre_layrnorm.'],
  ['post_norm.', 'post_layernorm.'],
];

const IMAGE_LAYER: Names = [
  ['norm1.', 'layer_norm1.'],
  ['norm2.', 'layer_norm2.'],
  ['attn.proj.', 'self_attn.out_proj.'],
  ['mlp.0.', 'mlp.fc1.'],
  ['mlp.2.', 'mlp.fc2.'],
];

/** The first prefix that fits, replaced. */
function replaced(key: string, names: Names): string {
  const [from, to] = names.find(([prefix]) => key.startsWith(prefix)) ?? ['', ''];
  return to + key.slice(from.length);
}

/** The way up is numbered through; an upsampler ends a block. */
function upPlaces(tensors: Tensors): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  let [block, resnet] = [0, 0];
  for (let n = 0; ; n += 1) {
    const layer = `decoder.upsamples.${n}`;
    if (tensors.has(`${layer}.residual.2.weight`)) {
      places.set(layer, `decoder.up_blocks.${block}.resnets.${resnet}`);
      resnet += 1;
    } else if (tensors.has(`${layer}.resample.1.weight`)) {
      places.set(layer, `decoder.up_blocks.${block}.upsamplers.0`);
      [block, resnet] = [block + 1, 0];
    } else {
      return places;
    }
  }
}
