import { firstStep } from '../common/batching.js';
import { isGuided } from '../common/guidance.js';
import type { GenerationRequest } from '../pipeline.js';

export interface PlannedStep {
  readonly isGuided: boolean;
  /** True if the step skips the blocks and adds the residual of the last whole run. */
  readonly isReused: boolean;
}

/**
 * Plans each step, by its index; steps before the first one are not run. As in TeaCache the changes of the timestep
 * embedding are summed up from one whole run to the next. Its polynomials, fitted to each model, are left out. The first and
 * the last step are whole, and so is one that is guided when the last whole run was not: its other half has nothing to reuse.
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
  let isKeptGuided = false;
  for (let step = 0; step < request.steps; step += 1) {
    const guided = isGuided(request, step);
    if (step > first) changed += relativeChange(embeddings[step - 1], embeddings[step]);
    const isInside = step > first && step < request.steps - 1;
    const isReused = isInside && changed < threshold && (isKeptGuided || !guided);
    if (!isReused) {
      changed = 0;
      isKeptGuided = guided;
    }
    plan.push({ isGuided: guided, isReused });
  }
  return plan;
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
