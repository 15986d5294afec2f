import type { Config } from '../../config/server-config.js';
import type { Logger } from '../../log.js';
import { MetricsRegistry } from '../../observe/metrics-registry.js';
import { type MetricsServer, OFF, startMetricsServer } from '../../observe/metrics-server.js';
import { openTraces } from '../../observe/traces.js';
import { ServerMetrics } from './server-metrics.js';
import type { CreateServerObserver } from './server-observer.js';
import { ServerTraces } from './server-traces.js';
import { StatusLog } from './status-log.js';
import type { TraceIds } from './trace-ids.js';

export interface ServerWatch {
  /** Observers for `createServer`. */
  readonly observers: readonly CreateServerObserver[];
  /** Serves the metrics. @param problem of the server */
  listen(problem: (model: string | undefined) => string | undefined): Promise<MetricsServer | undefined>;
  /** Exports the last spans, for a few seconds at most. */
  stop(): Promise<void>;
}

export interface WatchServerOptions {
  readonly config: Pick<
    Config,
    'METRICS_LISTEN' | 'OTEL_EXPORTER_OTLP_ENDPOINT' | 'OTEL_SERVICE_NAME' | 'TRACE_PROMPTS'
  >;
  readonly log: Logger;
  readonly traceIds: TraceIds;
  /** Time between two status lines, in ms. Default: a minute. */
  readonly statusMs?: number;
}

/** Opens the metrics, the traces and the status log that the configuration asks for. */
export async function watchServer({ config, log, traceIds, statusMs }: WatchServerOptions): Promise<ServerWatch> {
  const traces = await openTraces(config, 'darkroom-server', log);
  const registry = config.METRICS_LISTEN === OFF ? undefined : new MetricsRegistry({ withProcess: true });
  let status: StatusLog | undefined;
  let metrics: MetricsServer | undefined;
  const observers: CreateServerObserver[] = [
    (server) => {
      status = new StatusLog(server, log, statusMs);
      return status;
    },
  ];
  // In this order: the traces find the ids, which the metrics read until they are forgotten.
  observers.push(() => ({ jobAccepted: (job, call) => traceIds.jobAccepted(job, call) }));
  if (traces !== undefined) observers.push((server) => new ServerTraces(traces, server, traceIds));
  if (registry !== undefined) observers.push((server) => new ServerMetrics(registry, server, traceIds));
  observers.push(() => ({ jobEnded: (job) => traceIds.jobEnded(job) }));
  return {
    observers,
    async listen(problem) {
      if (registry === undefined) return undefined;
      const address = config.METRICS_LISTEN;
      metrics = await startMetricsServer({ address, variable: 'METRICS_LISTEN', registry, problem, log });
      return metrics;
    },
    async stop() {
      status?.stop();
      await metrics?.close();
      await traces?.stop();
    },
  };
}
