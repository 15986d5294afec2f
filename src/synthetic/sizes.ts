/** Sizes of the models with made-up weights, apart from the code that writes them. */

/** `sdxl-tiny` has 8.5 million weights, and so has `sdxl-inpaint-tiny`, whose UNet takes a mask; `sdxl-base` the 3.5 billion of the released model, 6.9 GB in F16. */
export const syntheticSizes = ['sdxl-tiny', 'sdxl-inpaint-tiny', 'sdxl-base'] as const;
export type SyntheticSize = (typeof syntheticSizes)[number];

/**
 * `wan-tiny` has a million weights; `wan-1.3b` the released model's 1.4 billion, and 5.7 billion of its text encoder. The same with
 * VACE's control branch; image-to-video, of which 14B is the only one released; Fun-InP and Fun-Control; and WAN 2.2's model of 5B, which has
 * a VAE of its own.
 */
export const syntheticWanSizes = [
  'wan-tiny',
  'wan-1.3b',
  'wan-14b',
  'wan-vace-tiny',
  'wan-vace-1.3b',
  'wan-i2v-tiny',
  'wan-i2v-14b',
  'wan-fun-inp-tiny',
  'wan-fun-inp-1.3b',
  'wan-ti2v-tiny',
  'wan-ti2v-5b',
  'wan-fun-control-tiny',
  'wan-fun-control-1.3b',
] as const;
export type SyntheticWanSize = (typeof syntheticWanSizes)[number];

/** Embeddings of four vectors, for the SDXL of the same size. */
export const syntheticEmbeddingSizes = ['sdxl-embedding-tiny', 'sdxl-embedding'] as const;
export type SyntheticEmbeddingSize = (typeof syntheticEmbeddingSizes)[number];

/** ControlNets for the SDXL of the same size: 3.8 million weights, and the 1.3 billion of the released ones. */
export const syntheticControlNetSizes = ['sdxl-controlnet-tiny', 'sdxl-controlnet'] as const;
export type SyntheticControlNetSize = (typeof syntheticControlNetSizes)[number];

/** CLIP's image encoder with its projection: 32,000 weights, and the 632 million of ViT-H. */
export const syntheticImageEncoderSizes = ['clip-image-encoder-tiny', 'clip-image-encoder'] as const;
export type SyntheticImageEncoderSize = (typeof syntheticImageEncoderSizes)[number];

/** IP-Adapters for the SDXL and the image encoder of the same size. */
export const syntheticIpAdapterSizes = [
  'sdxl-ip-adapter-tiny',
  'sdxl-ip-adapter',
  'sdxl-ip-adapter-plus-tiny',
  'sdxl-ip-adapter-plus',
] as const;
export type SyntheticIpAdapterSize = (typeof syntheticIpAdapterSizes)[number];

/** Upscalers by 4: 5,000 weights, and the 17 million of Real-ESRGAN. */
export const syntheticUpscalerSizes = ['upscaler-tiny', 'upscaler'] as const;
export type SyntheticUpscalerSize = (typeof syntheticUpscalerSizes)[number];

/** `qwen-tiny` has 120,000 weights; the others are as large as the released models of that size. */
export const syntheticQwenSizes = ['qwen-tiny', 'qwen-0.5b', 'qwen-7b'] as const;
export type SyntheticQwenSize = (typeof syntheticQwenSizes)[number];
