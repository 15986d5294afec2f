import { firstStep } from '../common/batching.js';
import { isGuided, skipsLayers } from '../common/guidance.js';
import type { GenerationRequest } from '../pipeline.js';

/** A text that the transformer is run on in a step, and whether it skips the request's blocks. */
export type Row = 'negative' | 'negative_skipping' | 'prompt_skipping' | 'prompt';

export interface PlannedStep {
  /** In the order in which they are run together; the prompt is the last. */
  readonly rows: readonly Row[];
  /** True if the step skips all blocks and adds the residual of the last whole run. */
  readonly isReused: boolean;
}

/**
 * Plans each step, by its index; steps before the first one are not run. As in TeaCache the changes of the timestep
 * embedding are summed up from one whole run to the next. Its polynomials, fitted to each model, are left out. The first and
 * the last step are whole, and so is one with rows that the last whole run did not end in: it has no residual for them.
 *
 * https://github.com/ali-vilab/TeaCache/blob/7c10efc4702c6b619f47805f7abe4a7a08085aa0/TeaCache4Wan2.1/teacache_generate.py#L520
 *
 * @param embeddings of the timesteps of all steps; only looked at where the request reuses
 */
export function planSteps(
  request: GenerationRequest,
  embeddings: readonly Float32Array[] = [],
): readonly PlannedStep[] {
  const threshold = request.video?.reuseThreshold ?? 0;
  const first = firstStep(request);
  const plan: PlannedStep[] = [];
  let changed = 0;
  let kept: readonly Row[] = [];
  for (let step = 0; step < request.steps; step += 1) {
    const rows = rowsAt(request, step);
    if (step > first) changed += relativeChange(embeddings[step - 1], embeddings[step]);
    const isInside = step > first && step < request.steps - 1;
    const isReused = isInside && changed < threshold && rows.every((row, i) => kept.at(i - rows.length) === row);
    if (!isReused) {
      changed = 0;
      kept = rows;
    }
    plan.push({ rows, isReused });
  }
  return plan;
}

function rowsAt(request: GenerationRequest, step: number): readonly Row[] {
  const skips = skipsLayers(request, step);
  const hasOwnRun = skips && (request.video?.skipLayers?.scale ?? 0) > 0;
  const negative = skips && !hasOwnRun ? 'negative_skipping' : 'negative';
  return [
    ...(isGuided(request, step) ? ([negative] as const) : []),
    ...(hasOwnRun ? (['prompt_skipping'] as const) : []),
    'prompt',
  ];
}

/** mean |b - a| / mean |a|; infinite where there is nothing to compare. */
function relativeChange(a: Float32Array = new Float32Array(), b: Float32Array = new Float32Array()): number {
  let difference = 0;
  let size = 0;
  for (const [i, x] of a.entries()) {
    difference += Math.abs((b[i] ?? 0) - x);
    size += Math.abs(x);
  }
  return size === 0 ? Number.POSITIVE_INFINITY : difference / size;
}
