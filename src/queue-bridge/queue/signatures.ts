import type { Signature } from './script.js';

/** The scripts in `scripts/`, and the order of their arguments. */
export const signatures = {
  poll: {
    arguments: ['maxPayloads', 'maxBytes', 'maxReadBytes', 'expiry', 'reapFrom', 'reapUntil', 'graceMs'],
    columns: ['lane'],
  },
  admit: {
    arguments: ['callsBack', 'retentionMs', 'maxPayloadBytes', 'maxRejected'],
    columns: ['sha1', 'kind', 'id', 'user', 'lane', 'type', 'text', 'traceparent'],
  },
  claim: {
    arguments: ['token', 'worker', 'leaseMs', 'seed', 'callsBack', 'traceparent'],
    columns: ['lane', 'weight', 'server', 'keeps'],
  },
  heartbeat: { arguments: ['id', 'token', 'leaseMs', 'progress', 'progressMs', 'publishes'] },
  record: { arguments: ['id', 'token'], columns: ['field', 'value'] },
  release: { arguments: ['id', 'token', 'isSpent', 'delayMs', 'keepsServer', 'reason'] },
  finish: {
    arguments: [
      'id',
      'token',
      'state',
      'body',
      'callsBack',
      'retentionMs',
      'progress',
      'progressMs',
      'publishes',
      'usage',
      'isSpent',
    ],
  },
  'take-deliveries': { arguments: ['token', 'most', 'leaseMs'] },
  settle: { arguments: ['id', 'token', 'result', 'delayMs', 'reason', 'retentionMs'] },
  'take-usage': { arguments: ['token', 'most', 'leaseMs'] },
  'settle-usage': { arguments: ['id', 'run', 'token', 'result', 'delayMs', 'reason', 'retentionMs'] },
  'forget-strays': { arguments: [], columns: ['run'] },
  list: { arguments: ['most', 'state'] },
  show: { arguments: ['id'] },
  check: { arguments: ['publishes'] },
  counts: { arguments: [], columns: ['lane'] },
  lines: { arguments: ['most'], columns: ['lane'] },
  'dead-letters': { arguments: ['most'] },
  cancel: { arguments: ['id', 'keepMs', 'retentionMs', 'body'] },
  replay: { arguments: ['id', 'callbackOnly'] },
} as const satisfies Record<string, Signature>;

export type ScriptName = keyof typeof signatures;
