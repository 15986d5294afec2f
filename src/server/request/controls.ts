import { InferenceError } from '../../errors.js';
import { type Control, ControlMode } from '../../gen/darkroom/v1/job.js';
import { type AnyFamily, type Families, titlesOf } from '../../pipelines/family.js';
import type { RequestControl } from '../../pipelines/pipeline.js';
import type { AddOnRegistry } from './add-on-registry.js';
import { checkEnum } from './enum-values.js';
import type { Check } from './field-checks.js';
import { isShare } from './plan-range.js';
import type { ReferenceSource } from './planned-references.js';
import { sourceOf } from './references.js';

/** Each is a network beside the UNet, of half its size. */
const MAX_CONTROLS = 4;
const MAX_SCALE = 2;

/** A checked control of a request: its network is not looked up, its image not fetched. */
export interface PlannedControl extends Pick<RequestControl, 'name' | 'scale' | 'start' | 'end'> {
  /** As the request has it. */
  readonly mode: ControlMode;
  readonly source: ReferenceSource | undefined;
}

interface ControlContext {
  readonly family: AnyFamily;
  readonly families: Families;
  readonly limitBytes: number;
}

/** Checks the controls of a request and fills in defaults. */
export function planControls(
  controls: readonly Control[],
  { family, families, limitBytes }: ControlContext,
  check: Check,
): readonly PlannedControl[] {
  const takers = titlesOf(families, ({ takes }) => takes.controls);
  const isTaken = controls.length === 0 || family.takes.controls;
  check(isTaken, 'controls', `controls are for ${takers}; leave them out for ${family.title}`);
  if (!isTaken) return [];
  const isFew = controls.length <= MAX_CONTROLS;
  check(isFew, 'controls', `controls has ${controls.length} entries, must have at most ${MAX_CONTROLS}`);
  return controls.slice(0, MAX_CONTROLS).map(({ name, scale = 1, start = 0, end = 1, source, mode }, i) => {
    const field = `controls[${i}]`;
    checkEnum(ControlMode, 'ControlMode', `${field}.mode`, mode, check);
    const isScale = scale >= 0 && scale <= MAX_SCALE;
    check(isScale, `${field}.scale`, `${field}.scale ${scale} must be >= 0 and <= ${MAX_SCALE}`);
    for (const [side, value] of Object.entries({ start, end })) {
      check(isShare(value), `${field}.${side}`, `${field}.${side} ${value} must be >= 0 and <= 1`);
    }
    const isPart = !isShare(start) || !isShare(end) || start <= end;
    check(isPart, `${field}.end`, `${field}.start ${start} and end ${end} must be 0 to 1, start at most end`);
    return { name, mode, scale, start, end, source: sourceOf({ source }, field, limitBytes, check) };
  });
}

/**
 * Finds the files of a request's controls. Their images are empty until they are fetched.
 * @throws InferenceError CONTROLNET_NOT_FOUND, MODEL_UNSUPPORTED, or the fault of a file; INVALID_REQUEST for a mode that is missing or not
 * known
 */
export function findControls(
  controls: readonly PlannedControl[],
  family: AnyFamily,
  registry: AddOnRegistry<'controlnet'>,
): readonly RequestControl[] {
  return controls.map(({ source: _, mode, ...control }, i) => {
    const { path, revision, summary } = registry.get(control.name, family);
    assertMode(`controls[${i}].mode`, mode, control.name, summary?.modes ?? 0);
    const kind = mode === ControlMode.CONTROL_MODE_UNSPECIFIED ? {} : { mode: mode - 1 };
    return { ...control, ...kind, path, revision, parameters: summary?.parameters ?? 0, rgb: new Uint8Array() };
  });
}

function assertMode(field: string, mode: ControlMode, name: string, modes: number): void {
  if (modes === 0 ? mode === ControlMode.CONTROL_MODE_UNSPECIFIED : mode >= 1 && mode <= modes) return;
  const description =
    modes === 0
      ? `${field} must be unset: "${name}" knows one kind of images`
      : `${field} ${mode} must be 1 to ${modes}, the kinds of images that "${name}" knows; use a value of ControlMode`;
  throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field, description }] });
}

/** Controls in the API's form, without their images. */
export function controlMessages(controls: readonly RequestControl[] = []): Control[] {
  return controls.map(({ name, mode, scale, start, end }) => ({
    ...{ name, scale, start, end, source: undefined },
    mode: (mode === undefined ? 0 : mode + 1) as ControlMode,
  }));
}
