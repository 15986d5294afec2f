import { type DpmConfig, DpmPp } from './dpmpp.js';

/**
 * DPM-Solver++ of third order with noise, multistep, as k-diffusion has it. The second step integrates its slope exactly, and the
 * second-last one is of third order in short schedules too. diffusers' `sde-dpmsolver++` of third order is not the same: the half
 * in the weight of its second difference has the opposite sign, and it converges with first order.
 * https://github.com/crowsonkb/k-diffusion/blob/v0.1.1.post1/k_diffusion/sampling.py#L656
 */
export class DpmPp3mSde extends DpmPp {
  constructor(name: string, config: DpmConfig, steps: number) {
    super(name, config, steps, { sde: true, order: 3 });
  }

  protected override orderOf(i: number): number {
    return i === this.timesteps.length - 1 ? 1 : 3;
  }

  protected override weights(i: number, h: number, scaled: number, order: number): readonly number[] {
    if (order !== 2) return super.weights(i, h, scaled, order);
    const gain = 1 - Math.exp(-scaled);
    const slope = (1 - gain / scaled) / this.ratio(i - 1, h);
    return [gain + slope, -slope];
  }
}
