import { z } from 'zod';

/** An optional path. */
export const path = z.string().min(1).optional();

/** A whole number with a default and bounds. */
export function count(fallback: number, min: number, max: number) {
  return z.coerce.number().int().min(min).max(max).default(fallback);
}

/** The name that requests use for a model. @param kind as the description calls it: "SDXL" */
export function modelName(fallback: string, kind: string) {
  return z
    .string()
    .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be lower-case letters, digits, ".", "_" and "-"')
    .default(fallback)
    .describe(`Name of the ${kind} model in requests: lower-case letters, digits, ".", "_" and "-".`);
}

/** Engines that serve a model. @param kind as the description calls it: "SDXL" */
export function replicas(kind: string) {
  return count(1, 1, 64).describe(
    `Number of engines that serve ${kind}, each with its own copy of the weights. They are spread over DEVICES.`,
  );
}

/** Settings of a distilled model. @param names of the presets; @param kind as the description calls it: "SDXL" */
export function samplingPreset<Name extends string>(names: readonly Name[], kind: string) {
  return z
    .enum(names)
    .optional()
    .describe(
      `Scheduler, steps and guidance of requests that name none, for a checkpoint of ${kind} that was distilled for a few steps: ${names.join(', ')}. Unset: those of the job type.`,
    );
}

/** `true`, `false` or unset. */
export const flag = z.enum(['true', 'false']).optional();

/** An address to listen on, host:port. Port 0 picks a free port. @param example an address that the message shows */
export function listenAddress(fallback: string, example: string) {
  return z
    .string()
    .regex(/^.+:\d{1,5}$/, `must be host:port, for example ${example}`)
    .default(fallback);
}
