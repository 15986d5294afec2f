import { InferenceError } from '../../errors.js';
import type { Caller, Scope } from './caller.js';

const READ: readonly Scope[] = ['read'];
const GENERATE: readonly Scope[] = ['generate'];
const EITHER: readonly Scope[] = ['generate', 'read'];

/** Scopes of which one is enough for a method, beside `admin`. A method that is not listed needs `admin`. */
const METHOD_SCOPES: Readonly<Record<string, readonly Scope[]>> = {
  '/darkroom.v1.InferenceService/Generate': GENERATE,
  '/darkroom.v1.InferenceService/Enhance': GENERATE,
  '/darkroom.v1.InferenceService/Estimate': EITHER,
  '/darkroom.v1.InferenceService/Tokenize': EITHER,
  '/darkroom.v1.JobService/WatchJob': EITHER,
  '/darkroom.v1.JobService/CancelJob': GENERATE,
  '/darkroom.v1.JobService/GetJob': EITHER,
  '/darkroom.v1.JobService/ListJobs': EITHER,
  '/darkroom.v1.ModelService/ListModels': READ,
  '/darkroom.v1.ModelService/GetServerStatus': READ,
};

/** @returns PERMISSION_DENIED where no scope of the caller allows the method */
export function scopeProblem(path: string, { name, scopes }: Caller): InferenceError | undefined {
  // Every token may ask for health and for the API's description.
  if (path.startsWith('/grpc.')) return undefined;
  const needed = METHOD_SCOPES[path] ?? [];
  if (scopes.includes('admin') || needed.some((scope) => scopes.includes(scope))) return undefined;
  const method = path.slice(path.lastIndexOf('/') + 1);
  return new InferenceError(
    'PERMISSION_DENIED',
    `token "${name}" has the scope ${scopes.join(', ')}; ${method} needs ${[...needed, 'admin'].join(' or ')}`,
    { info: { token: name } },
  );
}
