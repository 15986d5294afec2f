import { z } from 'zod';
import { InferenceError } from '../../errors.js';
import type { JsonFileOptions } from '../../std/json-file.js';
import { problemsOf } from '../../std/schema-problems.js';
import { MAX_LAYERS } from '../../weights/weight-shapes.js';

/** A number of layers of a kind. Each one of a configuration is looked for, whatever the files have. */
export function layerCount(least: number): z.ZodInt {
  return z.int().min(least).max(MAX_LAYERS);
}

/** How the configurations of a diffusers-layout folder are read: each is a page of JSON, a megabyte is none. */
export function configFile(model: string): JsonFileOptions {
  return { maxBytes: 1_000_000, missing: `a diffusers-layout ${model} folder has it` };
}

/**
 * Checks the configuration of a component that stands in no `config.json`.
 * @param values with the fields of that file
 * @param model and path for messages: the family, and the file that the values come from
 * @throws InferenceError CHECKPOINT_INVALID that names every bad field
 */
export function parseComponentConfig<T>(
  schema: z.ZodType<T>,
  values: unknown,
  { model, path }: { readonly model: string; readonly path: string },
): T {
  const parsed = schema.safeParse(values);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error).join('; ');
  throw new InferenceError(
    'CHECKPOINT_INVALID',
    `${path} is not ${model} configuration that darkroom knows: ${problems}`,
  );
}
