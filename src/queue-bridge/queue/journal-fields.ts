import type { ScriptName } from './signatures.js';

interface JournalFieldInfo {
  readonly meaning: string;
  /** Scripts that write it, in the order of a job's life. */
  readonly writers: readonly ScriptName[];
  /** The bridge's own bookkeeping: `darkroom jobs` does not show it. */
  readonly isInternal?: true;
  /** What its text stands for. Omitted: itself. */
  readonly form?: 'time' | 'json';
}

const UPLOAD = 'upload:';

/**
 * Every field of a job's journal, which is a hash in Redis. Values are text; times are milliseconds since 1970.
 * docs/reference/bridge.md has this table; tests compare the two, and both with what the scripts write.
 */
export const journalFields = {
  id: { meaning: 'Id of the job.', writers: ['admit'] },
  payload: {
    meaning: 'Payload as it was pushed. Empty if it was too large to be kept.',
    writers: ['admit'],
    form: 'json',
  },
  user: { meaning: '`user_id` of the payload.', writers: ['admit'] },
  lane: { meaning: 'Lane that the job waits in.', writers: ['admit'] },
  type: { meaning: 'Job type.', writers: ['admit'] },
  seq: { meaning: 'Number of its arrival: its place in the queue of its user.', writers: ['admit'], isInternal: true },
  created_at: { meaning: 'Time of its arrival.', writers: ['admit'], form: 'time' },
  traceparent: {
    meaning: '`traceparent` of the payload, else of the trace that the first claim began.',
    writers: ['admit', 'claim'],
  },
  pushed: { meaning: 'Number of times that the id was pushed.', writers: ['admit'] },
  calls_back: { meaning: '1 if the bridge that admitted it sends callbacks.', writers: ['admit'], isInternal: true },
  run: { meaning: '1, and 1 more for each replay that ran the job again.', writers: ['admit', 'replay'] },
  attempts: {
    meaning: 'Attempts of this run that count, the current one included.',
    writers: ['admit', 'claim', 'release', 'finish', 'replay'],
  },
  state: {
    meaning: '`waiting`, `delayed`, `leased`, `completed`, `failed`, `dead` or `cancelled`.',
    writers: ['admit', 'poll', 'claim', 'release', 'finish', 'cancel', 'replay'],
  },
  token: {
    meaning: 'Token of the lease. Empty: no worker has it.',
    writers: ['admit', 'poll', 'claim', 'release', 'finish', 'cancel', 'replay'],
    isInternal: true,
  },
  worker: { meaning: 'Bridge that claimed it last: host, process, a random part.', writers: ['claim'] },
  started_at: { meaning: 'Time of the last claim.', writers: ['claim'], form: 'time' },
  seed: {
    meaning: 'Seed that is used if the payload has none. It is kept over attempts and runs.',
    writers: ['claim'],
  },
  server: {
    meaning: 'Address of the server that has the job. Empty: the next claim chooses one.',
    writers: ['claim', 'record', 'release'],
  },
  server_job: { meaning: 'Id of the job on the server, if it is not its own.', writers: ['record'] },
  generated: {
    meaning: 'Stage `generated`: SHA-256 of each file and the metadata of the callback, JSON.',
    writers: ['record'],
    form: 'json',
  },
  'upload:<index>': { meaning: 'Stage `uploaded`: one stored file, JSON.', writers: ['record'], form: 'json' },
  last_error: { meaning: 'Why the last attempt ended.', writers: ['poll', 'release'] },
  callback: { meaning: 'Body of the terminal callback.', writers: ['admit', 'finish', 'cancel'], form: 'json' },
  ended_at: { meaning: 'Time of its end.', writers: ['admit', 'finish', 'cancel'], form: 'time' },
  ended_by: { meaning: 'Token of the lease that ended it.', writers: ['finish'], isInternal: true },
  pcb: {
    meaning: '`processing` callback: `due`, `delivered` or `dropped`.',
    writers: ['claim', 'take-deliveries', 'settle'],
  },
  cb: {
    meaning: 'Terminal callback: `due`, `delivered` or `dead`.',
    writers: ['admit', 'finish', 'settle', 'cancel', 'replay'],
  },
  cb_attempts: {
    meaning: 'Failed attempts to deliver the callback that is due.',
    writers: ['admit', 'claim', 'finish', 'settle', 'cancel', 'replay'],
  },
  cb_since: {
    meaning: 'Time since when the callback is due.',
    writers: ['admit', 'claim', 'finish', 'cancel', 'replay'],
    form: 'time',
  },
  cb_kind: {
    meaning: 'Kind of the delivery in flight: `processing` or `terminal`.',
    writers: ['take-deliveries'],
    isInternal: true,
  },
  cb_token: {
    meaning: 'Token of the delivery in flight. Empty: there is none.',
    writers: ['take-deliveries', 'settle'],
    isInternal: true,
  },
  cb_until: {
    meaning: 'Time when another bridge may deliver the callback.',
    writers: ['take-deliveries'],
    isInternal: true,
  },
  cb_error: { meaning: 'Why the last delivery attempt failed.', writers: ['settle'] },
  called_back_at: { meaning: 'Time when the terminal callback was delivered.', writers: ['settle'], form: 'time' },
} as const satisfies Readonly<Record<string, JournalFieldInfo>>;

/** Field of a stored file, by the place of the file in the job. */
export type UploadField = `upload:${number}`;

export type JournalField = Exclude<keyof typeof journalFields, 'upload:<index>'> | UploadField;

/** A journal, or a part of one. */
export type JournalFields = Readonly<Partial<Record<JournalField, string>>>;

/** The fields that a worker records while it has the job. */
export type RecordedFields = Readonly<Partial<Record<'server' | 'server_job' | 'generated' | UploadField, string>>>;

export function uploadField(index: number): UploadField {
  return `${UPLOAD}${index}`;
}

/** The place of a stored file; undefined for any other field. */
export function uploadIndex(field: string): number | undefined {
  return field.startsWith(UPLOAD) ? Number(field.slice(UPLOAD.length)) : undefined;
}

/** A journal without the bridge's own bookkeeping, in the order of the table. */
export function shownFields(fields: JournalFields): JournalFields {
  const shown = Object.entries(fields).filter(([field]) => infoOf(field)?.isInternal !== true);
  return Object.fromEntries(shown.sort(([a], [b]) => placeOf(a) - placeOf(b)));
}

/** The same for a person: times as in ISO 8601, and JSON as what it says. */
export function readableFields(fields: JournalFields): Readonly<Record<string, unknown>> {
  const shown = Object.entries(shownFields(fields));
  return Object.fromEntries(shown.map(([field, text = '']) => [field, readable(text, infoOf(field)?.form)]));
}

const PLACES = Object.keys(journalFields);

/** Fields that another version wrote come last. */
function placeOf(field: string): number {
  const place = PLACES.indexOf(tableName(field));
  return place === -1 ? PLACES.length : place;
}

function infoOf(field: string): JournalFieldInfo | undefined {
  const infos: Readonly<Record<string, JournalFieldInfo>> = journalFields;
  return infos[tableName(field)];
}

function tableName(field: string): string {
  return uploadIndex(field) === undefined ? field : `${UPLOAD}<index>`;
}

function readable(text: string, form: JournalFieldInfo['form']): unknown {
  if (form === undefined) return text;
  try {
    return form === 'time' ? new Date(Number(text)).toISOString() : JSON.parse(text);
  } catch {
    return text; // a payload that is no JSON
  }
}
