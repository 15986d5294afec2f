import {
  SpanKind as ApiSpanKind,
  type Attributes,
  type DiagLogger,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type Span,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';
import type { Logger } from '../log.js';
import { formatTraceparent, parseTraceparent } from '../std/traceparent.js';
import { version } from '../version.js';
import type { OpenSpan, SpanAttributes, SpanEnd, SpanKind, SpanOptions, Traces } from './traces.js';

/** Time limit for one export, its retries included, in ms. */
const EXPORT_MS = 2000;
/** Time limit for the last export at the stop, in ms. */
const STOP_MS = 3000;
/** Delay from the end of a span to its export, in ms. */
const BATCH_MS = 5000;
/** Spans that wait for an export; further ones are dropped. */
const MAX_WAITING = 2048;
/** Shortest time between two log lines about failed exports, in ms. */
const COMPLAINT_MS = 60_000;
const MAX_PROBLEM_CHARACTERS = 300;

const KINDS: Readonly<Record<SpanKind, ApiSpanKind>> = {
  internal: ApiSpanKind.INTERNAL,
  server: ApiSpanKind.SERVER,
  client: ApiSpanKind.CLIENT,
  consumer: ApiSpanKind.CONSUMER,
};

export interface OtlpTracesOptions {
  /** Base URL of a collector; `/v1/traces` is added. */
  readonly endpoint: string;
  readonly service: string;
  readonly includesPrompts: boolean;
  readonly log: Logger;
}

/** Exports spans over OTLP/HTTP in batches, in the background. The SDK reads the sampler and the headers from its own variables. */
export class OtlpTraces implements Traces {
  readonly includesPrompts: boolean;
  readonly #provider: BasicTracerProvider;
  readonly #tracer: Tracer;
  readonly #complain: (problem: string) => void;

  constructor({ endpoint, service, includesPrompts, log }: OtlpTracesOptions) {
    this.includesPrompts = includesPrompts;
    this.#complain = complaintsTo(log);
    diag.setLogger(diagnosticsTo(this.#complain), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
    const exporter = new OTLPTraceExporter({
      url: `${endpoint.replace(/\/+$/, '')}/v1/traces`,
      timeoutMillis: EXPORT_MS,
    });
    this.#provider = new BasicTracerProvider({
      resource: resourceFromAttributes({ 'service.name': service, 'service.version': version }),
      spanProcessors: [
        new BatchSpanProcessor(exporter, {
          scheduledDelayMillis: BATCH_MS,
          exportTimeoutMillis: EXPORT_MS,
          maxQueueSize: MAX_WAITING,
        }),
      ],
    });
    this.#tracer = this.#provider.getTracer('darkroom', version);
  }

  start(name: string, { kind = 'internal', parent, startMs, attributes }: SpanOptions = {}): OpenSpan {
    const place = parseTraceparent(parent);
    const context =
      place === undefined
        ? ROOT_CONTEXT
        : trace.setSpanContext(ROOT_CONTEXT, {
            ...place,
            traceFlags: place.isSampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
            isRemote: true,
          });
    const options = {
      kind: KINDS[kind],
      attributes: given(attributes),
      ...(startMs !== undefined && { startTime: startMs }),
    };
    return openSpan(this.#tracer.startSpan(name, options, context));
  }

  record(name: string, options: SpanOptions, end?: SpanEnd): void {
    this.start(name, options).end(end);
  }

  async stop(): Promise<void> {
    const bound = new Promise<void>((resolve) => setTimeout(resolve, STOP_MS).unref());
    await Promise.race([this.#provider.shutdown().catch((error: unknown) => this.#complain(String(error))), bound]);
  }
}

function openSpan(span: Span): OpenSpan {
  const { traceId, spanId, traceFlags } = span.spanContext();
  const isSampled = (traceFlags & TraceFlags.SAMPLED) !== 0;
  return {
    traceparent: formatTraceparent({ traceId, spanId, isSampled }),
    end({ endMs, attributes, errorType } = {}) {
      span.setAttributes(given(attributes));
      if (errorType !== undefined) {
        span.setAttribute('error.type', errorType);
        span.setStatus({ code: SpanStatusCode.ERROR });
      }
      span.end(endMs);
    },
  };
}

function given(attributes: SpanAttributes = {}): Attributes {
  return Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined));
}

/** Logs that a collector does not answer, once a minute at most. */
function complaintsTo(log: Logger): (problem: string) => void {
  let loggedAt = Number.NEGATIVE_INFINITY;
  return (problem) => {
    if (performance.now() - loggedAt < COMPLAINT_MS) return;
    loggedAt = performance.now();
    log.warn({ problem: problem.slice(0, MAX_PROBLEM_CHARACTERS) }, 'traces were not exported');
  };
}

function diagnosticsTo(complain: (problem: string) => void): DiagLogger {
  const silent = () => undefined;
  return { error: complain, warn: complain, info: silent, debug: silent, verbose: silent };
}
