/**
 * The tolerances, all of them. `relative` is the largest difference over the largest expected magnitude of the tensor,
 * `absolute` the largest difference; a case passes within either one that its kind states.
 */
const tolerances = {
  /** Token ids. */
  exact: { absolute: 0 },
  /** Random numbers: one unit in the last place of float32 around 4. */
  random: { absolute: 5e-7 },
  /** One call of a network, float32. */
  network: { relative: 1e-4 },
  /** A scheduler's table or trajectory. */
  schedule: { relative: 1e-4 },
  /** Latents at the end of a denoising loop. */
  loop: { relative: 2e-3 },
  /** A picture at the end of a denoising loop, 0 to 255. */
  picture: { absolute: 2 },
} as const satisfies Record<string, { relative?: number; absolute?: number }>;

export type Tolerance = keyof typeof tolerances;

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
  const judged = comparisons.map(({ what, actual, expected, tolerance }) => {
    const { absolute, relative } = difference(actual, expected);
    const bound: { relative?: number; absolute?: number } = tolerances[tolerance];
    const use = Math.max(
      bound.absolute === undefined ? 0 : ratio(absolute, bound.absolute),
      bound.relative === undefined ? 0 : ratio(relative, bound.relative),
    );
    const limit = bound.relative === undefined ? `abs <= ${bound.absolute}` : `rel <= ${bound.relative}`;
    return { use, text: `rel ${short(relative)}  abs ${short(absolute)}  (${what}: ${limit})` };
  });
  const worst = judged.reduce((a, b) => (b.use > a.use || Number.isNaN(b.use) ? b : a), {
    use: 0,
    text: judged[0]?.text ?? '',
  });
  return { name, outcome: worst.use <= 1 ? 'passed' : 'failed', detail: worst.text };
}

function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): { absolute: number; relative: number } {
  if (actual.length !== expected.length)
    return { absolute: Number.POSITIVE_INFINITY, relative: Number.POSITIVE_INFINITY };
  let absolute = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i += 1) {
    const error = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    // A NaN compares as neither larger nor smaller: it must not pass for a small error.
    absolute = Math.max(absolute, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
    largest = Math.max(largest, Math.abs(expected[i] ?? 0));
  }
  return { absolute, relative: largest === 0 ? absolute : absolute / largest };
}

function ratio(error: number, bound: number): number {
  if (error === 0) return 0;
  return bound === 0 ? Number.POSITIVE_INFINITY : error / bound;
}

function short(value: number): string {
  return value === 0 ? '0' : value.toExponential(1);
}
