/** A span's place in its trace, as W3C Trace Context writes it. https://www.w3.org/TR/trace-context/#traceparent-header */
export interface SpanPlace {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  readonly isSampled: boolean;
}

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
/** Of a later version, fields may follow the flags. */
const MAX_CHARACTERS = 128;

/** Reads a `traceparent`; undefined if it is none. */
export function parseTraceparent(text: unknown): SpanPlace | undefined {
  if (typeof text !== 'string' || text.length > MAX_CHARACTERS) return undefined;
  const [, traceId, spanId, flags] = TRACEPARENT.exec(text) ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

export function formatTraceparent({ traceId, spanId, isSampled }: SpanPlace): string {
  return `00-${traceId}-${spanId}-0${isSampled ? 1 : 0}`;
}

/** The trace id of a `traceparent`, for the log; undefined if it is none. */
export function traceIdOf(traceparent: string | undefined): string | undefined {
  return parseTraceparent(traceparent)?.traceId;
}
