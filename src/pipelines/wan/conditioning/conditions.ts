import type { RunningJobs } from '../../common/running-jobs.js';
import type { GenerationRequest, PipelineEvent } from '../../pipeline.js';
import { frameConditioningOf, variantOf } from '../model/variant.js';
import type { Condition } from './condition-feeds.js';
import type { ConditionNetworks } from './condition-networks.js';
import { controlFrames } from './control-frames.js';
import { encodeFunControl } from './fun-control.js';
import { encodeKnownLatents } from './i2v-condition.js';
import { encodeVaceControl, type VaceBlankCache } from './vace-control.js';

/** The conditions of a video's loop beside its texts. */
export interface Conditions {
  /** Undefined: the model takes text alone. */
  readonly condition: Condition | undefined;
  /** Latents that stand before the video's own in the loop and are cut off after it. */
  readonly leading: number;
}

/**
 * Encodes the images that a video is made from, the way the checkpoint takes them.
 * @param blanks kept from job to job
 * @returns undefined when the job ended meanwhile
 */
export async function* encodeConditions(
  job: number,
  running: RunningJobs,
  networks: ConditionNetworks,
  blanks: VaceBlankCache,
  { width, height, video }: GenerationRequest,
): AsyncGenerator<PipelineEvent, Conditions | undefined, undefined> {
  const { known, control: follows, frames = 1 } = video ?? {};
  const { method } = frameConditioningOf(networks.config.transformer);
  if (known !== undefined && known.method !== method && known.method !== 'latent_hold') {
    throw new Error(`known frames by ${known.method} on a model that takes them by ${method}`);
  }
  const own = known?.method === method ? known : undefined;
  const size = { width, height, frames };
  const signal = running.signalOf(job);
  const followed = follows && (() => controlFrames(follows, size, signal));
  switch (variantOf(networks.config.transformer)) {
    case 'vace': {
      const control = yield* encodeVaceControl(job, running, networks, blanks, size, {
        known: own,
        followed,
        scale: follows?.scale,
      });
      return control && { condition: control, leading: control.leading };
    }
    case 'image_to_video':
    case 'fun_inp': {
      const condition = yield* encodeKnownLatents(job, running, networks, size, own);
      return condition && { condition, leading: 0 };
    }
    case 'text_image_to_video': {
      const isClean = own?.start !== undefined;
      return { condition: isClean ? { kind: 'clean', count: 1 } : undefined, leading: 0 };
    }
    case 'fun_control': {
      const condition = yield* encodeFunControl(job, running, networks, size, { ...own, followed });
      return condition && { condition, leading: 0 };
    }
    case 'text_to_video':
      return { condition: undefined, leading: 0 };
  }
}
