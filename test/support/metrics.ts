import parsePrometheus from 'parse-prometheus-text-format';

/** Samples of a scrape, read by a parser that is not darkroom's. */
export class Scrape {
  readonly #families: readonly ParsedFamily[];

  constructor(text: string) {
    this.#families = parsePrometheus(text) as readonly ParsedFamily[];
  }

  static async of(metricsUrl: string): Promise<Scrape> {
    const response = await fetch(`${metricsUrl}/metrics`);
    return new Scrape(await response.text());
  }

  get names(): readonly string[] {
    return this.#families.map(({ name }) => name);
  }

  /** Number of samples over all metrics. */
  get series(): number {
    return this.#families.reduce((sum, { metrics }) => sum + metrics.length, 0);
  }

  /** Sum of the samples that have these labels; for a histogram, the number of its observations. */
  value(name: string, labels: Readonly<Record<string, string>> = {}): number {
    const family = this.#families.find((one) => one.name === name);
    if (family === undefined) throw new Error(`no metric ${name}`);
    const has = (sample: ParsedSample) =>
      Object.entries(labels).every(([label, value]) => sample.labels?.[label] === value);
    return family.metrics.filter(has).reduce((sum, { value, count }) => sum + Number(count ?? value), 0);
  }
}

interface ParsedFamily {
  readonly name: string;
  readonly type: string;
  readonly metrics: readonly ParsedSample[];
}

interface ParsedSample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value?: string;
  readonly count?: string;
}
