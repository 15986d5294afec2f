import type { Families } from './family.js';
import { sdxl } from './sdxl/family.js';
import { sdxlVariables } from './sdxl/variables.js';
import { wan } from './wan/family.js';
import { wanVariables } from './wan/variables.js';

/** The families that darkroom has; the order is that of messages and of `--help`. */
export const builtInFamilies: Families = [sdxl, wan];

/** Their variables, typed. */
export const builtInVariables = { ...sdxlVariables, ...wanVariables } as const;
