import type { Config } from '../../config/server-config.js';
import type { JobTypes } from '../../job-types.js';
import type { FfmpegFinding } from '../../media/ffmpeg.js';
import type { AnyFamily, Families } from '../../pipelines/family.js';
import type { ModelInfo } from '../../pipelines/pipeline.js';
import type { AddOns } from './add-ons.js';

/** The model that a request is for. */
export interface RequestedModel {
  readonly name: string;
  readonly family: AnyFamily;
  readonly info: ModelInfo;
}

/** Everything that a request is checked against. */
export interface RequestContext {
  readonly config: Config;
  readonly families: Families;
  readonly jobTypes: JobTypes;
  readonly model: RequestedModel;
  /** The program that writes videos, or why there is none. */
  readonly ffmpeg: FfmpegFinding;
  readonly addOns: AddOns;
}
