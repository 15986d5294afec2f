/** The noise schedule of the released SDXL, as its `scheduler_config.json` has it. */
export const sdxlSchedule = {
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  timestep_spacing: 'leading',
  steps_offset: 1,
} as const;
