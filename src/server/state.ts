import type { Config } from '../config/server-config.js';
import type { DeviceLedgers } from '../engine/device-ledgers.js';
import type { Engine } from '../engine/engine.js';
import type { JobTypes } from '../job-types.js';
import type { FfmpegFinding } from '../media/ffmpeg.js';
import type { Families } from '../pipelines/family.js';
import type { Access } from './access/access.js';
import type { EnhancementOptions } from './enhance/enhancement.js';
import type { Admission } from './jobs/admission.js';
import type { JobStore } from './jobs/job-store.js';
import type { AddOns } from './request/add-ons.js';
import type { Policy } from './request/policy.js';
import type { ReferenceLoader } from './request/reference-loader.js';
import type { CallOptions } from './stream.js';
import type { TokenizerCache } from './tokenize.js';

/** State that the handlers of one server share. */
export interface ServerState {
  readonly config: Config;
  /** Families that requests may be for. */
  readonly families: Families;
  readonly jobTypes: JobTypes;
  readonly engines: readonly Engine[];
  /** Memory of the devices that the engines are on. */
  readonly memory: DeviceLedgers;
  readonly jobs: JobStore;
  readonly admission: Admission;
  /** The ffmpeg that writes videos, as found when the server started. */
  readonly ffmpeg: FfmpegFinding;
  readonly references: ReferenceLoader;
  readonly addOns: AddOns;
  readonly tokenizers: TokenizerCache;
  /** The enhancer of prompts and its settings. */
  readonly enhancement: EnhancementOptions;
  readonly policy: Policy;
  readonly access: Access;
  readonly calls: CallOptions;
  /** An engine of a model, one that has read its checkpoint if there is one; undefined for a name that is not served. */
  engine(model: string): Engine | undefined;
}
