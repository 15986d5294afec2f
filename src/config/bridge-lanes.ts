import { z } from 'zod';
import { count } from '../std/variable-kinds.js';

/** A lane of the bridge: the jobs of one model family, so that a video of minutes does not delay an image of seconds. */
export interface Lane {
  /** Name of the family. */
  readonly name: string;
  /** Redis list that producers push to. */
  readonly queue: string;
  /** Largest number of its jobs that one bridge has in flight. 0: the bridge takes none. */
  readonly slots: number;
  /** Share of its jobs while several lanes have jobs, relative to the other lanes' weights. */
  readonly weight: number;
}

/** Each lane costs a Redis connection that waits for pushes. */
const MAX_LANES = 16;
const DEFAULT_LANES = ['sdxl', 'wan'];
const DEFAULT_SLOTS = 3;
/** An SDXL job takes seconds, a WAN job minutes. */
const DEFAULT_WEIGHTS: Readonly<Record<string, number>> = { sdxl: 3 };

export const laneNames = z
  .string()
  .transform((names) => names.split(',').flatMap((name) => name.trim() || []))
  .refine(
    (names) => names.every((name) => /^[a-z][a-z0-9._-]{0,31}$/.test(name)),
    'must be lower-case names of at most 32 letters, digits, ".", "_" and "-", separated by commas',
  )
  .refine((names) => names.length >= 1 && names.length <= MAX_LANES, `must be 1 to ${MAX_LANES} names`)
  .refine((names) => new Set(names.map(variablePart)).size === names.length, 'must name each lane once')
  .prefault(DEFAULT_LANES.join(','))
  .describe(
    'Lanes of the bridge: names of model families, separated by commas. Each one has a queue, slots and a weight.',
  );

/** The variables of these lanes, with defaults and bounds. */
export function laneVariables(names: readonly string[]): Readonly<Record<string, z.ZodType>> {
  return Object.assign(
    {},
    ...names.map((name) => {
      const title = name.toUpperCase();
      const variables = variablesOf(name);
      return {
        [variables.queue]: z
          .string()
          .regex(/^[A-Za-z0-9._:-]{1,128}$/, 'must be 1 to 128 letters, digits, ".", "_", ":" and "-"')
          .default(`${name}_queue`)
          .describe(`Redis list that producers push ${title} jobs to.`),
        [variables.slots]: count(DEFAULT_SLOTS, 0, 1024).describe(
          `Largest number of ${title} jobs among BRIDGE_SLOTS. 0: this bridge takes no ${title} jobs.`,
        ),
        [variables.weight]: count(DEFAULT_WEIGHTS[name] ?? 1, 1, 1000).describe(
          `Share of ${title} jobs while jobs of several lanes wait, relative to the weights of the other lanes.`,
        ),
      };
    }),
  );
}

/** The lanes that parsed variables describe. */
export function lanesFrom(names: readonly string[], values: Readonly<Record<string, unknown>>): readonly Lane[] {
  return names.map((name) => {
    const variables = variablesOf(name);
    return {
      name,
      queue: String(values[variables.queue]),
      slots: Number(values[variables.slots]),
      weight: Number(values[variables.weight]),
    };
  });
}

function variablesOf(name: string): Readonly<Record<'queue' | 'slots' | 'weight', string>> {
  const prefix = `BRIDGE_${variablePart(name)}`;
  return { queue: `${prefix}_QUEUE`, slots: `${prefix}_SLOTS`, weight: `${prefix}_WEIGHT` };
}

/** Names of variables have no "." and "-". */
function variablePart(name: string): string {
  return name.toUpperCase().replaceAll(/[.-]/g, '_');
}
