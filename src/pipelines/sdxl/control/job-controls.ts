import type { Feed } from '../../../runtime/session.js';
import { join32 } from '../../../std/concat-float32.js';
import type { RequestControl } from '../../pipeline.js';
import type { ControlNet } from './controlnet.js';

/** A control of a job, its image embedded. */
export interface JobControl extends Pick<RequestControl, 'mode' | 'scale' | 'start' | 'end'> {
  readonly net: ControlNet;
  /** [C0, H, W] */
  readonly hint: Float32Array;
}

/** A control of a run: one ControlNet over a batch. */
export interface BatchControl {
  readonly net: ControlNet;
  /** [B, C0, H, W] */
  readonly hint: Float32Array;
  /** [B]: 0 for a row that it does not act on now. */
  readonly scales: Float32Array;
  /** B kinds of control images; union models alone read them. */
  readonly modes: readonly number[];
}

/**
 * Strength of a control in call `i` of `calls`, those that image-to-image leaves out not counted.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/pipelines/controlnet/pipeline_controlnet_sd_xl.py#L1436
 */
export function scaleAt(
  { scale, start, end }: Pick<RequestControl, 'scale' | 'start' | 'end'>,
  i: number,
  calls: number,
): number {
  return i / calls < start || (i + 1) / calls > end ? 0 : scale;
}

/**
 * The controls of a batch. Its rows have the same ControlNets in the same order; those that act on no row are left out.
 * @param rows of the batch, each with its job's controls and the call that it is in
 */
export function batchControls(
  rows: readonly { readonly controls: readonly JobControl[]; readonly call: number; readonly calls: number }[],
): readonly BatchControl[] {
  const [first] = rows;
  return (first?.controls ?? []).flatMap(({ net }, k) => {
    const own = rows.map(({ controls }) => controls[k] as JobControl);
    const scales = Float32Array.from(rows, ({ call, calls }, i) => scaleAt(own[i] as JobControl, call, calls));
    if (scales.every((scale) => scale === 0)) return [];
    return [{ net, hint: join32(own.map(({ hint }) => hint)), scales, modes: own.map(({ mode = 0 }) => mode) }];
  });
}

export function scaleFeed(scales: Float32Array): Feed {
  return { data: scales, shape: [scales.length, 1, 1, 1] };
}
