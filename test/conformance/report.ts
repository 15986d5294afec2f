/**
 * The tolerances, all of them. `relative` is the largest difference over the largest expected magnitude of the tensor,
 * `absolute` the largest difference, `rms` the root of their mean square; a case passes within all that its kind states.
 */
export const tolerances = {
  /** Token ids. */
  exact: { absolute: 0 },
  /** Random numbers: one unit in the last place of float32 around 4. */
  random: { absolute: 5e-7 },
  /** One call of a network, float32. */
  network: { relative: 1e-4 },
  /** Frames of WAN's VAE, float32: its errors add up over three doublings of the size and two of time. */
  frames: { relative: 1e-4 },
  /** A scheduler's table or trajectory. */
  schedule: { relative: 1e-4 },
  /** Latents at the end of a denoising loop. */
  loop: { relative: 2e-3 },
  /** A picture at the end of a denoising loop, 0 to 255. */
  picture: { absolute: 2 },
} as const satisfies Record<string, { relative?: number; absolute?: number }>;

export type Tolerance = keyof typeof tolerances;

type Bound = { readonly relative?: number; readonly absolute?: number; readonly rms?: number };

/**
 * What changes where networks compute in half precision: rounding at every op. Measured on the goldens (docs/reference/precision.md),
 * with room for another order of sums. `coarse`: float16 with float16 sums, which are WebGPU's, and CUDA's for convolutions of the few
 * channels that tiny networks have; UMT5, which does not bear float16, computes in bfloat16 there.
 */
export const halfTolerances = {
  fp16: { network: { relative: 1e-2 }, frames: { relative: 2e-2 }, loop: { relative: 1.5e-2 }, picture: { rms: 2 } },
  bf16: {
    network: { relative: 7e-2 },
    frames: { relative: 0.12 },
    loop: { relative: 0.15 },
    picture: { rms: 11 },
  },
  coarse: {
    network: { relative: 5e-2 },
    frames: { relative: 6e-2 },
    loop: { relative: 5e-2 },
    picture: { rms: 10 },
  },
} as const satisfies Record<string, Partial<Record<Tolerance, Bound>>>;
export type HalfTolerances = keyof typeof halfTolerances;

export interface Comparison {
  readonly what: string;
  readonly actual: ArrayLike<number>;
  readonly expected: ArrayLike<number>;
  readonly tolerance: Tolerance;
}

export type Outcome = 'passed' | 'failed' | 'skipped';

export interface CaseResult {
  readonly name: string;
  readonly outcome: Outcome;
  /** Errors and what they may be, or why it was skipped. */
  readonly detail: string;
  readonly measured?: readonly Measured[];
}

/** The difference of one comparison. */
export interface Measured {
  readonly what: string;
  readonly tolerance: Tolerance;
  /** The largest one. */
  readonly absolute: number;
  /** The largest one over the largest expected magnitude. */
  readonly relative: number;
  /** Root of the mean square. */
  readonly rms: number;
}

export interface Case {
  readonly name: string;
  run(): CaseResult | Promise<CaseResult>;
}

export function skipped(name: string, why: string): CaseResult {
  return { name, outcome: 'skipped', detail: why };
}

/** Judges one case by all its comparisons; the worst one is what the line shows. */
export function judge(name: string, comparisons: readonly Comparison[]): CaseResult {
  return judgeMeasured(
    name,
    comparisons.map(({ what, actual, expected, tolerance }) => ({ what, tolerance, ...difference(actual, expected) })),
    tolerances,
  );
}

/** The same by the tolerances of a half precision. */
export function judgeHalf(result: CaseResult, half: HalfTolerances): CaseResult {
  const { name, measured } = result;
  return measured === undefined ? result : judgeMeasured(name, measured, { ...tolerances, ...halfTolerances[half] });
}

function judgeMeasured(
  name: string,
  measured: readonly Measured[],
  bounds: Readonly<Record<Tolerance, Bound>>,
): CaseResult {
  const judged = measured.map(({ what, tolerance, ...errors }) => {
    const limits = Object.entries(bounds[tolerance]) as [keyof Bound, number][];
    const use = Math.max(...limits.map(([kind, limit]) => ratio(errors[kind], limit)));
    const [[kind, limit] = ['absolute', 0]] = limits;
    const found = (Object.entries(errors) as [keyof Bound, number][]).map(([k, v]) => `${k} ${short(v)}`).join('  ');
    return { use, text: `${found}  (${what}: ${kind} <= ${limit})` };
  });
  const worst = judged.reduce((a, b) => (b.use > a.use || Number.isNaN(b.use) ? b : a), {
    use: 0,
    text: judged[0]?.text ?? '',
  });
  return { name, outcome: worst.use <= 1 ? 'passed' : 'failed', detail: worst.text, measured };
}

/** Differences of two arrays. Those of arrays of different lengths are infinite. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): Required<Bound> {
  const infinite = Number.POSITIVE_INFINITY;
  if (actual.length !== expected.length) return { absolute: infinite, relative: infinite, rms: infinite };
  let absolute = 0;
  let largest = 0;
  let squares = 0;
  for (let i = 0; i < expected.length; i += 1) {
    const error = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    // A NaN compares as neither larger nor smaller: it must not pass for a small error.
    absolute = Math.max(absolute, Number.isNaN(error) ? infinite : error);
    largest = Math.max(largest, Math.abs(expected[i] ?? 0));
    squares += error ** 2;
  }
  const rms = Math.sqrt(squares / Math.max(1, expected.length));
  return { relative: largest === 0 ? absolute : absolute / largest, absolute, rms };
}

function ratio(error: number, bound: number): number {
  if (error === 0) return 0;
  return bound === 0 ? Number.POSITIVE_INFINITY : error / bound;
}

function short(value: number): string {
  return value === 0 ? '0' : value.toExponential(1);
}
