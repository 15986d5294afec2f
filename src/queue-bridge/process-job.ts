import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError } from '../client/client.js';
import { extensionOf, type SavedAsset } from '../client/save-assets.js';
import { type ErrorReason, InferenceError } from '../errors.js';
import type { JobEvent } from '../gen/darkroom/v1/event.js';
import type { JobTypes } from '../job-types.js';
import type { Logger } from '../log.js';
import { type SpanOptions, type Traces, traced } from '../observe/traces.js';
import { backoffMs } from '../std/backoff.js';
import { traceIdOf } from '../std/traceparent.js';
import type { AssetStore } from '../storage/asset-store.js';
import { completedBody, failedBody } from './callback/callback-body.js';
import { callbackMessage } from './callback/callback-message.js';
import { callbackMetadata, generatedMetadata, roleName, type UploadedFile } from './callback/callback-metadata.js';
import { fetchGenerated, progressFrom } from './fetch-generated.js';
import { LeaseKeeper } from './lease-keeper.js';
import type { BridgeObserver, Step } from './observe/bridge-observer.js';
import { generateRequestFrom } from './payload/generate-request.js';
import { type JobPayload, type ReadJob, readPayload, safeUserName } from './payload/payload.js';
import { type Finish, type Held, type JobQueue, type Lease, serverJobIdOf } from './queue/job-queue.js';
import { type RecordedFields, uploadField } from './queue/journal-fields.js';
import type { PoolServer, ServerPool } from './server-pool.js';
import { completedUsage, failedUsage, type JobUsage } from './usage/usage-body.js';

/** Longest delay before a job that no server accepted is offered again. */
const UNSPENT_RETRY_MS = 200;

export interface JobContext {
  readonly queue: JobQueue;
  readonly storage: AssetStore;
  readonly pool: ServerPool;
  readonly log: Logger;
  /** Folder for files that are not stored yet. */
  readonly spool: string;
  readonly leaseMs: number;
  readonly progressMs: number;
  /** Number of attempts before a job is given up. */
  readonly attempts: number;
  readonly retryMs: number;
  readonly retryMaxMs: number;
  /** Aborted when the bridge stops: jobs are released. */
  readonly drain: AbortSignal;
  /** True if the server stops with the bridge. */
  readonly endsServer: boolean;
  readonly jobTypes: JobTypes;
  /** Name of this bridge. */
  readonly worker: string;
  /** True if a usage record is sent of every job. */
  readonly sendsUsage: boolean;
  readonly observer: BridgeObserver;
  readonly traces: Traces | undefined;
}

/** The stage `generated` of a journal. */
interface GeneratedStage {
  /** Metadata of the callback without the fields that need the stored files. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly files: readonly { readonly index: number; readonly sha256: string }[];
  /** Largest resident memory of the engine so far, in bytes. Omitted: not known. */
  readonly enginePeakBytes?: number;
}

/** What is left to do is the end. */
interface StoredJob {
  readonly metadata: GeneratedStage['metadata'];
  readonly files: readonly UploadedFile[];
  readonly enginePeakBytes: number | undefined;
}

interface HashedFile extends SavedAsset {
  /** Hexadecimal. */
  readonly sha256: string;
}

/**
 * Completes a claimed job from the last stage in its journal. When this returns, the job has ended, is back in the queue, or
 * belongs to another worker.
 */
export async function processJob(lease: Lease, context: JobContext): Promise<void> {
  await new JobRun(lease, context).run();
}

class JobRun {
  readonly #lease: Lease;
  readonly #context: JobContext;
  readonly #log: Logger;
  readonly #keeper: LeaseKeeper;
  readonly #folder: string;
  readonly #startedAt = performance.now();
  #server: PoolServer | undefined;
  /** True if a server sent an event of the job in this attempt. */
  #wasTaken = false;
  /** True if an engine began with it. */
  #hasStarted = false;
  /** False if the job used up its attempts before this one. */
  #isBegun = true;
  /** True if the store rejected a write of this lease. */
  #isFenced = false;
  /** Span of this attempt. */
  #traceparent: string | undefined;

  constructor(lease: Lease, context: JobContext) {
    this.#lease = lease;
    this.#context = context;
    const traceId = traceIdOf(lease.traceparent);
    this.#log = context.log.child({ jobId: lease.id, attempt: lease.attempts, ...(traceId && { traceId }) });
    this.#keeper = new LeaseKeeper(context.queue, lease, { ...context, log: this.#log });
    this.#folder = join(context.spool, lease.token);
  }

  async run(): Promise<void> {
    const { traces } = this.#context;
    const { id, type, lane, attempts, traceparent } = this.#lease;
    const span: SpanOptions = {
      kind: 'consumer',
      parent: traceparent,
      attributes: {
        'messaging.operation.type': 'process',
        'messaging.destination.name': lane,
        'messaging.message.id': id,
        'darkroom.job.id': id,
        'darkroom.job.type': type,
        'darkroom.job.attempt': attempts,
      },
    };
    await traced(traces, 'process', span, async (own) => {
      this.#traceparent = own;
      await this.#attempt();
    });
  }

  async #attempt(): Promise<void> {
    try {
      await this.#complete();
    } catch (error) {
      await this.#handleFailure(error).catch((cause: unknown) => this.#log.error({ err: cause }, 'job not released'));
    } finally {
      await this.#keeper.stop();
      await rm(this.#folder, { recursive: true, force: true });
    }
  }

  async #complete(): Promise<void> {
    const { payload, isCancelled, attempts, lastError } = this.#lease;
    if (isCancelled) throw cancelled();
    const read = readPayload(payload, this.#context);
    if (read.kind !== 'job') throw new InferenceError('INVALID_REQUEST', read.problem);
    if (attempts > this.#context.attempts) {
      this.#isBegun = false;
      return this.#end(
        'dead',
        new InferenceError('INTERNAL', `given up after ${attempts - 1} attempts: ${lastError ?? 'unknown'}`),
      );
    }
    const { metadata, files, enginePeakBytes } = this.#stored() ?? (await this.#generateAndStore(read));
    await this.#keeper.stop();
    const assets = files.filter(({ role }) => role === 'result').map(({ url }) => url);
    const complete = callbackMetadata(metadata, files);
    const usage = completedUsage(this.#usage, complete, { assets, enginePeakBytes });
    await this.#finish('completed', completedBody(this.#lease.id, assets, complete), usage);
    this.#context.observer.jobEnded(this.#lease, 'completed', undefined);
    this.#log.info({ ms: Math.round(performance.now() - this.#startedAt), files: files.length }, 'job completed');
  }

  /** The files of the job, if an earlier worker stored all of them: only the end is missing. */
  #stored(): StoredJob | undefined {
    if (this.#lease.generated === undefined) return undefined;
    const { metadata, files, enginePeakBytes } = JSON.parse(this.#lease.generated) as GeneratedStage;
    const uploaded = files.flatMap(({ index, sha256 }) => this.#uploaded(index, sha256) ?? []);
    return uploaded.length === files.length ? { metadata, files: uploaded, enginePeakBytes } : undefined;
  }

  /** The stored file at this index, if it has this hash. */
  #uploaded(index: number, sha256: string): UploadedFile | undefined {
    const entry = this.#lease.uploads.get(index);
    const file = entry === undefined ? undefined : (JSON.parse(entry) as UploadedFile);
    return file?.sha256 === sha256 ? file : undefined;
  }

  async #generateAndStore(job: ReadJob): Promise<StoredJob> {
    const { payload } = job;
    const { pool, drain } = this.#context;
    const { id, lane, seed } = this.#lease;
    // The server in the journal may be running the job or have its files.
    const server = (await pool.at(this.#lease.server, lane)) ?? pool.leastBusy(lane);
    if (server === undefined) throw new InferenceError('DRAINING', `no server has a model for ${payload.type} now`);
    this.#server = server;
    if (server.address !== this.#lease.server) await this.#record({ server: server.address });
    const signal = AbortSignal.any([this.#keeper.signal, drain]);
    const release = pool.acquire(server);
    const request = generateRequestFrom(job, { jobId: this.#serverJobId, seed });
    const onEvent = (event: JobEvent) => {
      this.#wasTaken = true;
      if (event.event?.$case === 'started') this.#hasStarted = true;
      const progress = progressFrom(event);
      if (progress !== undefined) this.#keeper.report({ job_id: id, ...progress });
    };
    const generated = await this.#step('generate', callAttributes(server.address), (traceparent) =>
      fetchGenerated(server.client, request, { folder: this.#folder, signal, traceparent, onEvent }),
    ).finally(release);

    const metadata = generatedMetadata(job, generated.metadata);
    const hashed = generated.files.map((saved) => ({ ...saved, sha256: saved.asset.sha256.toString('hex') }));
    const peak = generated.metadata.enginePeakBytes;
    const enginePeakBytes = peak === undefined ? undefined : Number(peak);
    const stage: GeneratedStage = {
      metadata,
      files: hashed.map(({ asset, sha256 }) => ({ index: asset.index, sha256 })),
      ...(enginePeakBytes !== undefined && { enginePeakBytes }),
    };
    await this.#record({ generated: JSON.stringify(stage) });

    const files = await this.#step('store', {}, (parent) => this.#store(payload, hashed, { signal, parent }));
    return { metadata, files, enginePeakBytes };
  }

  /** Stores the files of a job that are not stored yet. */
  async #store(
    payload: JobPayload,
    hashed: readonly HashedFile[],
    { signal, parent }: { readonly signal: AbortSignal; readonly parent: string | undefined },
  ): Promise<readonly UploadedFile[]> {
    const { storage, traces } = this.#context;
    const { id } = this.#lease;
    const files: UploadedFile[] = [];
    for (const { asset, path, sha256 } of hashed) {
      const { index, contentType, width, height } = asset;
      let file = this.#uploaded(index, sha256);
      if (file === undefined) {
        const sizeBytes = Number(asset.sizeBytes);
        const key = `${safeUserName(payload.user_id)}/${id}/${index}.${extensionOf(contentType)}`;
        const object = { bucket: payload.type, key, path, contentType, sizeBytes, sha256: asset.sha256 };
        const attributes = { 'darkroom.storage': storage.kind, 'darkroom.file.bytes': sizeBytes };
        const url = await traced(traces, 'upload', { kind: 'client', parent, attributes }, () =>
          storage.put(object, signal),
        );
        const role = roleName(asset.role);
        file = { index, role, url, content_type: contentType, size_bytes: sizeBytes, sha256, width, height };
        await this.#record({ [uploadField(index)]: JSON.stringify(file) });
      }
      files.push(file);
    }
    return files;
  }

  /** Runs a step of the attempt under a span, and times it. */
  async #step<T>(
    step: Step,
    attributes: NonNullable<SpanOptions['attributes']>,
    run: (traceparent: string | undefined) => Promise<T>,
  ): Promise<T> {
    const { traces, observer } = this.#context;
    const startedAt = performance.now();
    const kind = step === 'generate' ? 'client' : 'internal';
    const result = await traced(traces, step, { kind, parent: this.#traceparent, attributes }, run);
    observer.stepEnded(this.#lease, step, performance.now() - startedAt);
    return result;
  }

  get #usage(): JobUsage {
    const { id, run, attempts, type, user, server } = this.#lease;
    return {
      job_id: id,
      run,
      attempts: this.#isBegun ? attempts : attempts - 1,
      worker_id: this.#context.worker,
      server: this.#server?.address ?? (server || null),
      job_type: type,
      user_id: user,
    };
  }

  get #serverJobId(): string {
    return serverJobIdOf(this.#lease);
  }

  async #handleFailure(caught: unknown): Promise<void> {
    const { queue, drain, attempts: most, retryMs, retryMaxMs, pool } = this.#context;
    const { id, token, run, attempts } = this.#lease;
    await this.#keeper.stop();
    if (this.#keeper.interruption === 'lost') {
      if (!this.#isFenced) this.#context.observer.leaseLost(this.#lease, 'renewal');
      this.#log.warn('lease lost: it expired, and the job went back to the queue');
      return;
    }
    if (this.#keeper.interruption === 'cancelled') return this.#end('cancelled', cancelled());
    if (drain.aborted) {
      if (this.#context.endsServer) await this.#cancelOnServer();
      await queue.release({ id, token, isSpent: false, delayMs: 0, keepsServer: true, reason: 'the bridge stopped' });
      this.#context.observer.jobReleased(this.#lease, undefined);
      this.#log.info('job released');
      return;
    }
    const error = InferenceError.from(caught);
    if (error.reason === 'CANCELLED') return this.#end('cancelled', error);
    if (error.reason === 'JOB_ID_CONFLICT') {
      // Another client used the id there, or another version of the bridge sent another request.
      await queue.record(id, token, { server_job: `${id}:${run}:${attempts}` });
    } else if (!isTemporary(caught)) {
      return this.#end('failed', error);
    }

    const isGone = error.reason === 'UNREACHABLE';
    // A full disk is no fault of the job, however far it was: it waits until the machine has room.
    const isExhausted = error.reason === 'MACHINE_EXHAUSTED';
    // What ended a server may have been a job that waited there. What ended an engine was one that it had begun with.
    const isSpent = !isExhausted && ((isGone ? this.#wasTaken : this.#hasStarted) || !wasNotBegun(error));
    if (this.#server !== undefined && (isGone || UNABLE.includes(error.reason)))
      pool.markUnavailable(this.#server.address);
    if (isSpent && attempts >= most) return this.#end('dead', error);
    const initial = isSpent || isExhausted ? retryMs : Math.min(retryMs, UNSPENT_RETRY_MS);
    const backoff = { initial, max: retryMaxMs };
    const delayMs = (error.retryAfterMs ?? 0) + backoffMs(isSpent ? attempts : 1, backoff);
    this.#log.warn({ reason: error.reason, problem: error.message, delayMs, isSpent }, 'job retried later');
    // A server that reported a failure has nothing to attach to. One that is gone may come back with the job.
    const keepsServer = isGone || isExhausted || error.reason === 'STORAGE_FAILED';
    await queue.release({ id, token, isSpent, delayMs, keepsServer, reason: error.message });
    this.#context.observer.jobReleased(this.#lease, error.reason);
  }

  /** Cancels the job on the server of this attempt, else on that of an earlier one: servers continue jobs whose bridge is gone. */
  async #cancelOnServer(): Promise<void> {
    const server = this.#server?.address ?? this.#lease.server;
    await this.#context.pool.cancel({ server, jobId: this.#serverJobId });
  }

  async #end(state: 'failed' | 'dead' | 'cancelled', error: InferenceError): Promise<void> {
    await this.#keeper.stop();
    const message = callbackMessage(error);
    const body = failedBody(this.#lease.id, { reason: error.reason, message });
    // A server that rejected the job has nothing to cancel, and one that reports a conflict has the job of another client.
    const mayRun = (state !== 'failed' || this.#server === undefined) && error.reason !== 'JOB_ID_CONFLICT';
    await Promise.all([
      mayRun ? this.#cancelOnServer() : undefined,
      this.#finish(state, body, failedUsage(this.#usage, error.reason)),
    ]);
    this.#context.observer.jobEnded(this.#lease, state, error.reason);
    this.#log.info({ state, reason: error.reason }, 'job failed');
  }

  async #finish(state: Finish['state'], callback: string, usage: string): Promise<void> {
    const { id, token } = this.#lease;
    const { queue, sendsUsage } = this.#context;
    const status = state === 'completed' ? 'completed' : 'failed';
    const progress = JSON.stringify({
      job_id: id,
      status,
      ...(state === 'completed' && { fraction: 1 }),
      updated_at: new Date().toISOString(),
    });
    const record = sendsUsage ? { usage } : {};
    this.#assertHeld(await queue.finish({ id, token, state, callback, progress, isSpent: this.#isBegun, ...record }));
  }

  async #record(fields: RecordedFields): Promise<void> {
    const { id, token } = this.#lease;
    this.#assertHeld(await this.#context.queue.record(id, token, fields));
  }

  #assertHeld(held: Held): void {
    if (held === 'held') return;
    if (!this.#isFenced) this.#context.observer.leaseLost(this.#lease, 'fenced');
    this.#isFenced = true;
    this.#keeper.markLost();
    throw new InferenceError('CANCELLED', 'the lease of the job was lost');
  }
}

function callAttributes(address: string): NonNullable<SpanOptions['attributes']> {
  const at = address.lastIndexOf(':');
  return {
    'rpc.system': 'grpc',
    'rpc.service': 'darkroom.v1.InferenceService',
    'rpc.method': 'Generate',
    'server.address': address.slice(0, at),
    'server.port': Number(address.slice(at + 1)),
  };
}

function cancelled(): InferenceError {
  return new InferenceError('CANCELLED', 'the job was cancelled');
}

/** Server misconfiguration. Retry: another server may be fine, or the operator may fix it. */
const MISCONFIGURED: readonly ErrorReason[] = [
  'FFMPEG_MISSING',
  'MODEL_NOT_FOUND',
  'CHECKPOINT_INVALID',
  'PROVIDER_UNAVAILABLE',
  'UNAUTHENTICATED',
  'PERMISSION_DENIED',
];

/** True if another attempt may succeed. An unforeseen error is a fault of this machine, not of the job. */
function isTemporary(caught: unknown): boolean {
  return !(caught instanceof InferenceError) || caught.retryable || MISCONFIGURED.includes(caught.reason);
}

/** Reasons for which a server takes no job now, or ends one that it has not begun with. */
const NOT_BEGUN: readonly ErrorReason[] = [
  'QUEUE_FULL',
  'SERVER_BUSY',
  'RATE_LIMITED',
  'DRAINING',
  'ENGINE_STARTING',
  'ENGINE_CRASHED',
];

/** Reasons for which a server is asked for its state before it gets another job. */
const UNABLE: readonly ErrorReason[] = ['DRAINING', 'ENGINE_CRASHED'];

/** True if no server has begun with the job. Such an attempt is not counted. */
function wasNotBegun(error: InferenceError): boolean {
  if (error instanceof UnreachableError) return !error.wasSent;
  return NOT_BEGUN.includes(error.reason);
}
