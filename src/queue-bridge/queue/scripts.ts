import type { Admitted, Cancelled, Held, Replayed } from './job-queue.js';
import { loadScript, type Script, type ScriptValue } from './script.js';
import { type ScriptName, signatures } from './signatures.js';

/** Result of each script. The headers of the files explain it. */
export interface ScriptResults {
  readonly poll: [
    waiting: string[],
    due: number,
    nextDueMs: number,
    payloads: PayloadRow[],
    dueUsage: number,
    strays: string[],
    now: number,
  ];
  readonly admit: Admitted[];
  readonly claim: [id: string, isCancelled: number, journal: string[]] | null;
  readonly heartbeat: Held | 'cancelled';
  readonly record: Held;
  readonly release: Held;
  readonly finish: Held;
  readonly 'take-deliveries': string[][];
  readonly settle: Held;
  readonly 'take-usage': string[][];
  readonly 'settle-usage': Held;
  readonly 'forget-strays': number;
  readonly list: string[][];
  readonly show: string[];
  readonly check: [write: string, publish: string];
  readonly counts: number[];
  readonly lines: [user: string, waiting: number][];
  readonly 'dead-letters': [jobs: string[], callbacks: string[], rejected: string[], usage: string[]];
  readonly cancel: Cancelled;
  readonly replay: Replayed;
}

type PayloadRow = [list: string, sha1: string, bytes: number, text: string];

/** The arguments of a script by name. */
export type ScriptArguments<Name extends ScriptName> = Readonly<
  Record<(typeof signatures)[Name]['arguments'][number], ScriptValue>
>;

/** A row of a script that takes rows. */
export type ScriptRow<Name extends ScriptName> = (typeof signatures)[Name] extends {
  readonly columns: readonly (infer Column extends string)[];
}
  ? Readonly<Record<Column, ScriptValue>>
  : never;

/** Reads every script. @throws Error that names the file if one is missing */
export function loadScripts(): Readonly<Record<ScriptName, Script>> {
  const loaded = Object.entries(signatures).map(([name, signature]) => [name, loadScript(name, signature)]);
  return Object.fromEntries(loaded) as Record<ScriptName, Script>;
}
