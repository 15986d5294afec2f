import type { RunningJobs } from '../../common/running-jobs.js';
import type { GenerationRequest, PipelineEvent } from '../../pipeline.js';
import { variantOf } from '../model/variant.js';
import type { WanNetworks } from '../networks.js';
import type { Condition } from './condition-feeds.js';
import { encodeKnownLatents } from './i2v-condition.js';
import type { BlankLatents } from './vace-blank-cache.js';
import { encodeVaceControl } from './vace-control.js';

/** What a clip's loop goes by beside its texts. */
export interface Conditions {
  /** Undefined: the model takes nothing but text. */
  readonly condition: Condition | undefined;
  /** Latents that stand before the clip's own in the loop and are cut off after. */
  readonly leading: number;
}

/**
 * What the checkpoint takes of the pictures that a clip is made from.
 * @param blanks kept from job to job
 * @returns undefined when the job ended meanwhile
 */
export async function* encodeConditions(
  job: number,
  running: RunningJobs,
  networks: WanNetworks,
  blanks: BlankLatents,
  { width, height, clip }: GenerationRequest,
): AsyncGenerator<PipelineEvent, Conditions | undefined, undefined> {
  const { known, frames = 1 } = clip ?? {};
  const method = networks.info.frames?.method ?? 'latent_hold';
  if (known !== undefined && known.method !== method && known.method !== 'latent_hold') {
    throw new Error(`known frames by ${known.method} on a model that takes them by ${method}`);
  }
  const own = known?.method === method ? known : undefined;
  const size = { width, height, frames };
  switch (variantOf(networks.config.transformer)) {
    case 'vace': {
      const control = yield* encodeVaceControl(job, running, networks, blanks, size, own);
      return control && { condition: control, leading: control.leading };
    }
    case 'image_to_video': {
      const condition = yield* encodeKnownLatents(job, running, networks, size, own);
      return condition && { condition, leading: 0 };
    }
    case 'text_to_video':
      return { condition: undefined, leading: 0 };
  }
}
