import { z } from 'zod';

/** The address of metrics. */
export function metricsAddress(port: number) {
  return z
    .string()
    .regex(/^(off|.+:\d{1,5})$/, 'must be host:port, for example 0.0.0.0:9464, or off')
    .default(`127.0.0.1:${port}`);
}

/** Variables of both the server and the bridge. */
export const sharedVariables = {
  AUTH_TOKEN: z
    .string()
    .min(8)
    .optional()
    .describe('Bearer token that every call must carry, at least 8 characters. Unset: calls need none.'),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'])
    .default('info')
    .describe('Lowest level that is logged.'),
  OTEL_EXPORTER_OTLP_ENDPOINT: z
    .string()
    .regex(/^https?:\/\/[^/]/, 'must begin with https:// or http://')
    .optional()
    .describe('Base URL of a collector that traces are sent to over OTLP/HTTP. Unset: nothing is traced.'),
  OTEL_SERVICE_NAME: z
    .string()
    .min(1)
    .optional()
    .describe('Name of the service in traces. Unset: darkroom-server, darkroom-bridge.'),
  TRACE_PROMPTS: z
    .enum(['true', 'false'])
    .default('false')
    .transform((value) => value === 'true')
    .describe('Whether traces contain prompts: true or false.'),
} as const;
