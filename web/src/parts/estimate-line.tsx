import { useSignal, useSignalEffect } from '@preact/signals';
import { ApiError, type Estimate, post } from '../state/api';
import { reconnects } from '../state/connection';
import { currentState } from '../state/current-job';
import { chosenModel, requestOf } from '../state/form';
import { bytes, seconds } from '../state/formats';
import { afterPause } from '../state/timing';

const PAUSE_MS = 400;
/** References of more bytes are not sent with every change of the form. */
const MAX_SENT = 2_000_000;

/** What the job would take, before it starts. Mistakes of the form show here, too. */
export function EstimateLine() {
  const estimate = useSignal<Estimate | undefined>(undefined);
  const problem = useSignal('');
  useSignalEffect(() => {
    const request = requestOf();
    // A finished job is a new measurement.
    currentState.value;
    reconnects.value;
    if (chosenModel() === undefined) return;
    const references = (request.references as readonly { image: string }[]).filter(
      ({ image }) => image.length < MAX_SENT,
    );
    return afterPause(PAUSE_MS, async (signal) => {
      try {
        const { mask, ...rest } = request;
        const body = { ...rest, references, ...(references.length > 0 && { mask }) };
        estimate.value = await post<Estimate>('api/estimate', body, signal);
        problem.value = '';
      } catch (caught) {
        if (signal.aborted) return;
        const error = ApiError.from(caught);
        problem.value = error.violations.map(({ description }) => description).join('; ') || error.message;
      }
    });
  });
  const { width = 0, height = 0, denoisingSteps = 0, frames = 0, ...cost } = estimate.value ?? {};
  if (problem.value !== '') {
    return (
      <p class="error" data-testid="estimate">
        {problem.value}
      </p>
    );
  }
  if (estimate.value === undefined) return <p class="hint" data-testid="estimate" />;
  const work = cost.seconds ? `about ${seconds(cost.seconds)}` : 'time not known before the first job';
  const wait = cost.queueSeconds ? ` after ${seconds(cost.queueSeconds)} in the queue` : '';
  const memory = cost.devicePeakBytes ? `, ${bytes(cost.devicePeakBytes)} of device memory` : '';
  return (
    <p class="hint" data-testid="estimate">
      {width} × {height}
      {frames > 1 ? `, ${frames} frames` : ''}, {denoisingSteps} steps: {work}
      {wait}
      {memory}
    </p>
  );
}
