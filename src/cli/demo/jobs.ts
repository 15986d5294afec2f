/** The demo's SDXL was made for this size. */
const IMAGE = { width: 128, height: 128, steps: 15, guidance_scale: 4 };
const WAN = { width: 128, height: 96, steps: 6 };
const CLIP = { ...WAN, frame_num: 17 };

/** A payload as producers push it. */
export interface DemoJob {
  readonly id: string;
  readonly type: string;
  readonly prompt: string;
  readonly [field: string]: unknown;
}

const job = (type: string, prompt: string, config: object, more: object = {}): DemoJob => ({
  id: `demo-${type.replaceAll('_', '-')}`,
  type,
  prompt,
  user_id: 'demo',
  config: { seed: 7, ...config },
  ...more,
});

/** One job of each of the ten types, small and with few steps. Those of SDXL ask for what the demo model knows. */
export const demoJobs: readonly DemoJob[] = [
  job(
    'sdxl_image_fast',
    'a large yellow star on a blue background',
    { ...IMAGE, num_images: 3 },
    { compel_enabled: true, compel_weights: '(highly detailed:1.1), (sharp focus:0.9)' },
  ),
  job('sdxl_image_high', 'a large green heart on a white background', IMAGE),
  job('image_fast', 'a red bicycle in front of a bakery', WAN),
  job('image_high', 'a snowy mountain under stars', WAN),
  job('video_fast', 'a kite over a field, slow pan', CLIP),
  job('video_high', 'waves below a lighthouse', CLIP),
  job('image7b_fast_enhanced', 'a fox in a forest', WAN),
  job('image7b_high_enhanced', 'an old library', WAN),
  job('video7b_fast_enhanced', 'a train crossing a bridge', CLIP),
  job('video7b_high_enhanced', 'rain on a window', CLIP),
];
