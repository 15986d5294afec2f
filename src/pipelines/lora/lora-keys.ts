/** The names of tensors in LoRA files, of every trainer: which module each belongs to, and which part of it. */

export type LoraFormat = 'kohya' | 'peft';

/**
 * `mid`: the core of a LoCon's convolution. `upBias`: a bias behind `up`. `difference` and `differenceBias`: full-size changes of a weight
 * and of its bias. `magnitude`, `doraScale`: the lengths of DoRA, as PEFT and as LyCORIS store them. The others are the factors of LoHa
 * and LoKr, by LyCORIS's names.
 */
export type LoraPart =
  | 'down'
  | 'up'
  | 'mid'
  | 'alpha'
  | 'upBias'
  | 'difference'
  | 'differenceBias'
  | 'magnitude'
  | 'doraScale'
  | FactorPart;
export type FactorPart =
  | `hada_w${1 | 2}_${'a' | 'b'}`
  | `hada_t${1 | 2}`
  | `lokr_w${1 | 2}${'' | '_a' | '_b'}`
  | 'lokr_t2';

export interface LoraKey {
  readonly module: string;
  readonly part: LoraPart;
  readonly format: LoraFormat;
}

/** No module's path is longer; the patterns below never see a longer text. */
const MAX_KEY_CHARACTERS = 512;

const PARTS: Readonly<Record<string, LoraPart>> = {
  A: 'down',
  B: 'up',
  down: 'down',
  up: 'up',
  mid: 'mid',
  'lora_B.bias': 'upBias',
  'lora_up.bias': 'upBias',
  dora_scale: 'doraScale',
  lora_magnitude_vector: 'magnitude',
  diff: 'difference',
  diff_m: 'difference',
  w_norm: 'difference',
  diff_b: 'differenceBias',
  b_norm: 'differenceBias',
};

/**
 * The change of a block's modulation, as LightX2V's LoRAs of WAN have it. ComfyUI's wrapper of WAN reads it as `.modulation.diff`:
 * https://github.com/kijai/ComfyUI-WanVideoWrapper/blob/main/nodes_model_loading.py
 */
const MODULATION = /\.(diff_m)$/;

/** Ends of keys behind the module's name. The name of a PEFT adapter may stand before `.weight`. */
const ENDS: readonly RegExp[] = [
  /\.lora_([AB])(?:\.(?!bias$)[\w-]+)?(?:\.weight)?$/,
  /\.lora_(down|up|mid)(?:\.weight)?$/,
  /\.(lora_(?:B|up)\.bias)$/,
  /\.(dora_scale)$/,
  /\.(lora_magnitude_vector)(?:\.[\w-]+)?$/,
  /\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2)$/,
  /\.lora(?:_linear_layer)?\.(down|up)\.weight$/,
  /\.(diff|diff_b|w_norm|b_norm)$/,
  MODULATION,
  /\.alpha$/,
];

/**
 * Attention as diffusers named it in 2023: `attn1.processor.to_q_lora.down.weight`. The names are those of `UNET_TO_DIFFUSERS` and
 * `DIFFUSERS_OLD_TO_PEFT`:
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/utils/state_dict_utils.py#L43
 */
const ATTENTION_2023 = /^(.+?)(?:\.processor)?\.to_(q|k|v|out)_lora\.(?:(down|up)\.weight|alpha)$/;

/** True for keys of LoRAs and of other low-rank methods. */
function isLoraKey(key: string): boolean {
  return /^lora_|\.lora[._]|_lora\.(down|up)\.|\.(hada|lokr|dora|oft)_/.test(key);
}

/** True for a LoRA file. A stray key of a LoRA does not make one of a checkpoint. @param keys of all tensors */
export function isLoraFile(keys: readonly string[]): boolean {
  if (!keys.some(isLoraKey)) return false;
  const own = keys.filter((key) => isLoraKey(key) || parseLoraKey(key) !== undefined).length;
  return 2 * own > keys.length;
}

/** Undefined for a key that names no part of a LoRA. */
export function parseLoraKey(key: string): LoraKey | undefined {
  if (key.length > MAX_KEY_CHARACTERS) return undefined;
  const name = key.replace(/^base_model\.model\./, '');
  const [, block, letter = '', side] = ATTENTION_2023.exec(name) ?? [];
  if (block !== undefined) {
    return { module: attentionModule(block, letter), part: partOf(side), format: 'peft' };
  }
  for (const end of ENDS) {
    const found = end.exec(name);
    if (found === null || found.index === 0) continue;
    const module = name.slice(0, found.index) + (end === MODULATION ? '.modulation' : '');
    const format = /^lora_(unet|te\d?)_/.test(module) ? 'kohya' : 'peft';
    return { module, part: partOf(found[1]), format };
  }
  return undefined;
}

/** @param end of the key, in brackets in ENDS; undefined: an alpha */
function partOf(end: string | undefined): LoraPart {
  return end === undefined ? 'alpha' : (PARTS[end] ?? (end as FactorPart));
}

/** CLIP's attention has other names for its projections than the UNet's. */
function attentionModule(block: string, letter: string): string {
  const isClip = block.endsWith('.self_attn');
  if (letter === 'out') return `${block}.${isClip ? 'out_proj' : 'to_out.0'}`;
  return `${block}.${isClip ? `${letter}_proj` : `to_${letter}`}`;
}
