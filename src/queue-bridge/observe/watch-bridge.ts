import type { BridgeConfig } from '../../config/bridge-config.js';
import { contractJobTypes, type JobTypes } from '../../job-types.js';
import type { Logger } from '../../log.js';
import { MetricsRegistry } from '../../observe/metrics-registry.js';
import { type MetricsServer, OFF, startMetricsServer } from '../../observe/metrics-server.js';
import { openTraces, type Traces } from '../../observe/traces.js';
import type { JobQueue } from '../queue/job-queue.js';
import { BridgeMetrics } from './bridge-metrics.js';
import type { BridgeObserver } from './bridge-observer.js';
import { QueueMeasurements } from './queue-measurements.js';

export interface WatchBridgeOptions {
  readonly config: Pick<
    BridgeConfig,
    'BRIDGE_METRICS_LISTEN' | 'OTEL_EXPORTER_OTLP_ENDPOINT' | 'OTEL_SERVICE_NAME' | 'TRACE_PROMPTS'
  >;
  readonly log: Logger;
  /** Default: those of the contract. */
  readonly jobTypes?: JobTypes | undefined;
  /** True if a server is in the same process, whose metrics have those of the process. */
  readonly hasServer: boolean;
}

/** The metrics and traces of a bridge. */
export class BridgeWatch {
  readonly traces: Traces | undefined;
  readonly observers: readonly Partial<BridgeObserver>[];
  readonly #options: WatchBridgeOptions;
  readonly #registry: MetricsRegistry | undefined;
  readonly #metrics: BridgeMetrics | undefined;
  #measurements: QueueMeasurements | undefined;
  #running: () => number = () => 0;
  #server: MetricsServer | undefined;

  /** Opens what the configuration asks for. */
  static async open(options: WatchBridgeOptions): Promise<BridgeWatch> {
    return new BridgeWatch(options, await openTraces(options.config, 'darkroom-bridge', options.log));
  }

  private constructor(options: WatchBridgeOptions, traces: Traces | undefined) {
    this.#options = options;
    this.traces = traces;
    const { config, hasServer, jobTypes = contractJobTypes } = options;
    if (config.BRIDGE_METRICS_LISTEN !== OFF) {
      this.#registry = new MetricsRegistry({ withProcess: !hasServer });
      this.#metrics = new BridgeMetrics(this.#registry, {
        jobTypes,
        running: () => this.#running(),
        measurement: async () => this.#measurements?.current(),
      });
    }
    this.observers = this.#metrics === undefined ? [] : [this.#metrics];
  }

  /** Counts the commands of a queue. */
  readonly onCommand = (command: string): void => this.#metrics?.commandSent(command);

  /** Serves the metrics of a bridge. @returns the bound port; undefined if there is none */
  async listen(
    queue: JobQueue,
    bridge: { readonly running: number; notReady(lane?: string): string | undefined },
  ): Promise<number | undefined> {
    if (this.#registry === undefined) return undefined;
    this.#measurements = new QueueMeasurements(queue);
    this.#running = () => bridge.running;
    this.#server = await startMetricsServer({
      address: this.#options.config.BRIDGE_METRICS_LISTEN,
      variable: 'BRIDGE_METRICS_LISTEN',
      registry: this.#registry,
      problem: (lane) => bridge.notReady(lane),
      log: this.#options.log,
    });
    return this.#server.port;
  }

  /** Exports the last spans, for a few seconds at most. */
  async stop(): Promise<void> {
    await this.#server?.close();
    await this.traces?.stop();
  }
}
