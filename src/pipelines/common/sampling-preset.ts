/** Scheduler, steps and guidance that a model was distilled for: what a request gets that names none of its own. */
export interface SamplingPreset {
  readonly scheduler: string;
  readonly steps: number;
  /** Up to 1 a step runs the prompt alone. */
  readonly guidanceScale: number;
  /** Shift of the flow's noise levels. Omitted: the model's. */
  readonly shift?: number;
}

/** Presets by the names that requests and operators give. */
export type SamplingPresets = Readonly<Record<string, SamplingPreset>>;

/** The name that turns the operator's preset off for a request. */
export const NO_PRESET = 'none';

export function namesOf<Name extends string>(presets: Readonly<Record<Name, SamplingPreset>>): readonly Name[] {
  return Object.keys(presets) as Name[];
}
