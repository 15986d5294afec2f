import { type FlowScheduleCase, flowScheduleCases } from './flow-schedule-cases.js';
import type { Expected } from './golden-folder.js';
import type { Case } from './report.js';

/** What `cases.json` of a WAN folder holds beside its transformer, VAE and clips. */
export interface WanTextCases {
  readonly schedulers?: readonly FlowScheduleCase[];
}

export function wanTextCases({ schedulers = [] }: WanTextCases, expected: Expected): readonly Case[] {
  return flowScheduleCases(schedulers, expected);
}
