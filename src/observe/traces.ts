import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';

export type SpanKind = 'internal' | 'server' | 'client' | 'consumer';

export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>;

export interface SpanOptions {
  /** Default: `internal`. */
  readonly kind?: SpanKind;
  /** `traceparent` of the parent. Omitted: the span begins a trace. */
  readonly parent?: string | undefined;
  /** Milliseconds since 1970. Omitted: now. */
  readonly startMs?: number;
  /** Undefined ones are left out. */
  readonly attributes?: SpanAttributes;
}

export interface SpanEnd {
  /** Milliseconds since 1970. Omitted: now. */
  readonly endMs?: number;
  readonly attributes?: SpanAttributes;
  /** A reason of docs/reference/errors.md: the span failed. Messages may quote prompts and stay out. */
  readonly errorType?: string | undefined;
}

export interface OpenSpan {
  /** Names this span as a parent, in this process or another one. */
  readonly traceparent: string;
  end(end?: SpanEnd): void;
}

/** Records spans and exports them. */
export interface Traces {
  /** True if prompts may be attributes. */
  readonly includesPrompts: boolean;
  start(name: string, options?: SpanOptions): OpenSpan;
  /** Records a span that is over. */
  record(name: string, options: SpanOptions, end?: SpanEnd): void;
  /** Exports what is left, for a few seconds at most. */
  stop(): Promise<void>;
}

/**
 * Runs a step under a span. Without traces the step gets the parent.
 * @param run gets the `traceparent` for what it calls
 */
export async function traced<T>(
  traces: Traces | undefined,
  name: string,
  options: SpanOptions,
  run: (traceparent: string | undefined) => Promise<T>,
): Promise<T> {
  if (traces === undefined) return run(options.parent);
  const span = traces.start(name, options);
  try {
    const result = await run(span.traceparent);
    span.end();
    return result;
  } catch (error) {
    span.end({ errorType: InferenceError.from(error).reason });
    throw error;
  }
}

export interface TraceVariables {
  readonly OTEL_EXPORTER_OTLP_ENDPOINT?: string | undefined;
  readonly OTEL_SERVICE_NAME?: string | undefined;
  readonly TRACE_PROMPTS: boolean;
}

/**
 * Opens the traces that the configuration asks for. OpenTelemetry's SDK is loaded only then.
 * @param service name of the service unless OTEL_SERVICE_NAME is set
 * @returns undefined if no endpoint is set: nothing is traced
 */
export async function openTraces(
  { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_SERVICE_NAME, TRACE_PROMPTS }: TraceVariables,
  service: string,
  log: Logger,
): Promise<Traces | undefined> {
  if (endpoint === undefined) return undefined;
  const { OtlpTraces } = await import('./otlp-traces.js');
  return new OtlpTraces({ endpoint, service: OTEL_SERVICE_NAME ?? service, includesPrompts: TRACE_PROMPTS, log });
}
