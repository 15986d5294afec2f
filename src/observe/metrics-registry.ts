import {
  Counter,
  type CounterConfiguration,
  collectDefaultMetrics,
  Gauge,
  type GaugeConfiguration,
  Histogram,
  type HistogramConfiguration,
  type PrometheusContentType,
  Registry,
  type RegistryContentType,
} from 'prom-client';
import { Semaphore } from '../std/semaphore.js';

/** Default metrics of prom-client that repeat others under names that Prometheus reserves for counters. */
const LEFT_OUT = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

type Labelled<Config, Label extends string> = Omit<Config, 'registers' | 'labelNames' | 'enableExemplars'> & {
  readonly labels?: readonly Label[];
};

/** A histogram whose observations may name a trace. */
export type TracedHistogram = Histogram<string>;

export interface MetricDescription {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly help: string;
}

/** Fields of a metric that prom-client's types leave out. */
interface MetricConfig {
  readonly name: string;
  readonly type: string;
  readonly labelNames: readonly string[];
  readonly help: string;
}

/** What a scrape gets. */
export interface Exposition {
  readonly contentType: string;
  readonly text: string;
}

/** The metrics of one component of this process, in both of Prometheus' formats. Exemplars are only in OpenMetrics. */
export class MetricsRegistry {
  readonly #registry = new Registry();
  /** prom-client keeps the format in the registry, and reads it while it collects. */
  readonly #turn = new Semaphore(1);
  /** Expositions that wait for their turn, by format: scrapes that come meanwhile share them. */
  readonly #next = new Map<RegistryContentType, Promise<Exposition>>();

  /** @param withProcess the metrics of this process, too: CPU, memory, event loop, garbage collection */
  constructor({ withProcess = false }: { readonly withProcess?: boolean } = {}) {
    // It accepts metrics with exemplars only as an OpenMetrics registry.
    this.#setFormat(Registry.OPENMETRICS_CONTENT_TYPE);
    if (!withProcess) return;
    collectDefaultMetrics({ register: this.#registry });
    for (const name of LEFT_OUT) this.#registry.removeSingleMetric(name);
  }

  counter<Label extends string = never>({ labels = [], ...config }: Labelled<CounterConfiguration<Label>, Label>) {
    return new Counter<Label>({ ...config, labelNames: labels, registers: [this.#registry] });
  }

  gauge<Label extends string = never>({ labels = [], ...config }: Labelled<GaugeConfiguration<Label>, Label>) {
    return new Gauge<Label>({ ...config, labelNames: labels, registers: [this.#registry] });
  }

  histogram<Label extends string = never>({ labels = [], ...config }: Labelled<HistogramConfiguration<Label>, Label>) {
    return new Histogram<Label>({ ...config, labelNames: labels, registers: [this.#registry] });
  }

  tracedHistogram({ labels = [], ...config }: Labelled<HistogramConfiguration<string>, string>): TracedHistogram {
    return new Histogram({ ...config, labelNames: labels, registers: [this.#registry], enableExemplars: true });
  }

  /** Every metric. */
  list(): readonly MetricDescription[] {
    return this.#registry.getMetricsAsArray().map((metric) => {
      const { name, type, labelNames, help } = metric as unknown as MetricConfig;
      return { name: type === 'counter' ? totalName(name) : name, type: String(type), labels: [...labelNames], help };
    });
  }

  /** @param accept header of the scrape: OpenMetrics for a client that lists it, otherwise Prometheus' text format */
  expose(accept = ''): Promise<Exposition> {
    const isOpen = /application\/openmetrics-text/.test(accept);
    const contentType = isOpen ? Registry.OPENMETRICS_CONTENT_TYPE : Registry.PROMETHEUS_CONTENT_TYPE;
    const waiting = this.#next.get(contentType);
    if (waiting !== undefined) return waiting;
    let hasBegun = false;
    const exposition = this.#turn.run(async () => {
      hasBegun = true;
      this.#next.delete(contentType);
      this.#setFormat(contentType);
      // Writing OpenMetrics takes the "_total" from the names of counters, for good.
      for (const metric of this.#registry.getMetricsAsArray() as unknown as { name: string; type: string }[]) {
        if (metric.type === 'counter') metric.name = totalName(metric.name);
      }
      const text = await this.#registry.metrics();
      this.#setFormat(Registry.OPENMETRICS_CONTENT_TYPE);
      // OpenMetrics writes whole bounds as 1.0.
      return { contentType, text: isOpen ? text.replaceAll(/\ble="(\d+)"/g, 'le="$1.0"') : text };
    });
    if (!hasBegun) this.#next.set(contentType, exposition);
    return exposition;
  }

  #setFormat(contentType: RegistryContentType): void {
    // prom-client's types tie a registry to one format.
    this.#registry.setContentType(contentType as PrometheusContentType);
  }
}

function totalName(name: string): string {
  return name.endsWith('_total') ? name : `${name}_total`;
}
