import type { Delivery, Lease, UsageDelivery } from './job-queue.js';
import { type JournalFields, uploadIndex } from './journal-fields.js';

/** `last_error` of a job whose worker stopped renewing its lease. */
export const LEASE_EXPIRED = 'lease expired: the worker stopped renewing it';

/** Reads a hash as Redis returns it: field, value, field, value. */
export function fieldsFrom(flat: readonly string[]): JournalFields {
  const fields: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) fields[flat[i] ?? ''] = flat[i + 1] ?? '';
  return fields;
}

/** The lease of a claimed job, from its journal. */
export function leaseFrom(fields: JournalFields, isCancelled: boolean): Lease {
  const uploads = Object.entries(fields).flatMap(([field, value = '']) => {
    const index = uploadIndex(field);
    return index === undefined ? [] : [[index, value] as const];
  });
  return {
    id: fields.id ?? '',
    token: fields.token ?? '',
    lane: fields.lane ?? '',
    type: fields.type ?? '',
    user: fields.user ?? '',
    traceparent: fields.traceparent || undefined,
    payload: fields.payload ?? '',
    attempts: Number(fields.attempts),
    run: Number(fields.run),
    seed: Number(fields.seed),
    server: fields.server ?? '',
    serverJob: fields.server_job,
    generated: fields.generated,
    uploads: new Map(uploads),
    lastError: fields.last_error,
    isCancelled,
  };
}

/** Reads a row of `take-deliveries`: id, kind, run, type, user, body, attempts, age, time since the job came, traceparent. */
export function deliveryFrom(token: string, row: readonly string[]): Delivery {
  const [id = '', kind = '', run = '1', type = '', user = '', callback = '', attempts = '0', ageMs = '0'] = row;
  const [totalMs = '0', traceparent] = row.slice(8);
  return {
    id,
    token,
    kind: kind === 'processing' ? 'processing' : 'terminal',
    run: Number(run),
    type,
    user,
    callback,
    attempts: Number(attempts),
    ageMs: Number(ageMs),
    totalMs: Number(totalMs),
    traceparent: traceparent || undefined,
  };
}

/** Reads a row of `take-usage`: id, run, body, attempts, age, traceparent. */
export function usageDeliveryFrom(token: string, row: readonly string[]): UsageDelivery {
  const [id = '', run = '1', body = '', attempts = '0', ageMs = '0', traceparent] = row;
  return {
    id,
    token,
    run: Number(run),
    body,
    attempts: Number(attempts),
    ageMs: Number(ageMs),
    traceparent: traceparent || undefined,
  };
}
