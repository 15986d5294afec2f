import parsePrometheus from 'parse-prometheus-text-format';

/** Samples of a scrape, read by a parser that is not darkroom's. */
export class Scrape {
  readonly #samples: ReadonlyMap<string, readonly ParsedSample[]>;
  /** Names of the metrics. */
  readonly names: readonly string[];
  /** Number of samples, without those of garbage collections, of which a process sees new kinds as it goes. */
  readonly series: number;

  constructor(text: string) {
    this.names = parse(text).map(({ name }) => name);
    // The parser adds up the samples of a histogram over its labels. Without types, each one stays.
    const families = parse(text.replaceAll(/^#.*\n/gm, ''));
    const samples = new Map<string, ParsedSample[]>();
    for (const { name, metrics } of families) samples.set(name, [...(samples.get(name) ?? []), ...metrics]);
    this.#samples = samples;
    const counted = families.filter(({ name }) => !name.startsWith('nodejs_gc_'));
    this.series = counted.reduce((sum, { metrics }) => sum + metrics.length, 0);
  }

  static async of(metricsUrl: string): Promise<Scrape> {
    const response = await fetch(`${metricsUrl}/metrics`);
    return new Scrape(await response.text());
  }

  /** Sum of the samples that have these labels; for a histogram, the number of its observations. */
  value(name: string, labels: Readonly<Record<string, string>> = {}): number {
    if (!this.names.includes(name)) throw new Error(`no metric ${name}`);
    const has = (sample: ParsedSample) =>
      Object.entries(labels).every(([label, value]) => sample.labels?.[label] === value);
    const samples = this.#samples.get(`${name}_count`) ?? this.#samples.get(name) ?? [];
    return samples.filter(has).reduce((sum, { value }) => sum + Number(value), 0);
  }
}

function parse(text: string): readonly ParsedFamily[] {
  return parsePrometheus(text) as readonly ParsedFamily[];
}

interface ParsedFamily {
  readonly name: string;
  readonly metrics: readonly ParsedSample[];
}

interface ParsedSample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: string;
}
