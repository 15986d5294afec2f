import type { Metadata } from '@grpc/grpc-js';

/** What a token may do. `admin` includes the others. */
export const scopes = ['generate', 'read', 'admin'] as const;

export type Scope = (typeof scopes)[number];

/** Limits of a token. Unset ones do not limit. */
export interface TokenLimits {
  /** Jobs that wait or run. */
  readonly jobs?: number | undefined;
  /** New jobs within any 60 s. */
  readonly jobsPerMinute?: number | undefined;
  /** Width times height times number of images of a job. */
  readonly pixels?: number | undefined;
  /** Frames of a video. */
  readonly frames?: number | undefined;
}

/** Who makes a call. */
export interface Caller {
  /** Name of the token, which owns the jobs that it starts. Empty: AUTH_TOKEN, or a server without tokens. */
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly limits: TokenLimits;
}

/** Everybody on a server without tokens, and who has AUTH_TOKEN. */
export const operator: Caller = { name: '', scopes, limits: {} };

/** A caller of a service that needs no token. */
export const nobody: Caller = { name: '', scopes: [], limits: {} };

const callers = new WeakMap<Metadata, Caller>();

/** Keeps who makes a call, by the call's own metadata: no client can say it is somebody else. */
export function rememberCaller(metadata: Metadata, caller: Caller): void {
  callers.set(metadata, caller);
}

/** Who makes a call. The call guard knows it before a handler runs. */
export function callerOf(metadata: Metadata): Caller {
  const caller = callers.get(metadata);
  if (caller === undefined) throw new Error('the call was not authenticated');
  return caller;
}

/** True for a caller that sees the jobs of every token. */
export function seesAllJobs({ scopes }: Caller): boolean {
  return scopes.includes('admin');
}
