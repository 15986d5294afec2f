import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Server, ServerCredentials, setLogger } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import type { Config } from '../config/server-config.js';
import { DeviceLedgers } from '../engine/device-ledgers.js';
import type { Engine } from '../engine/engine.js';
import type { TextWork } from '../engine/messages.js';
import type { OnDemandEngine } from '../engine/on-demand-engine.js';
import { builtInTemplate } from '../enhancer/template.js';
import { InferenceError } from '../errors.js';
import { InferenceServiceService } from '../gen/darkroom/v1/inference_service.js';
import { JobServiceService } from '../gen/darkroom/v1/job_service.js';
import { ModelServiceService } from '../gen/darkroom/v1/model_service.js';
import { contractJobTypes, type JobTypes } from '../job-types.js';
import type { Logger } from '../log.js';
import { findFfmpeg } from '../media/ffmpeg.js';
import { builtInFamilies } from '../pipelines/families.js';
import type { Families } from '../pipelines/family.js';
import type { ReferenceFetcher } from '../references/reference-fetcher.js';
import { connectableHost } from '../std/address.js';
import { openAccess } from './access/access.js';
import { LocalSocket } from './access/local-socket.js';
import type { EnhancementOptions } from './enhance/enhancement.js';
import { PromptEnhancer } from './enhance/prompt-enhancer.js';
import { createInferenceService } from './inference-service.js';
import { createJobService } from './job-service.js';
import { Admission } from './jobs/admission.js';
import { endJob } from './jobs/end-job.js';
import { JobStore } from './jobs/job-store.js';
import { createModelService } from './model-service.js';
import { type CreateServerObserver, type ObservedServer, serverObserver } from './observe/server-observer.js';
import { notReady } from './readiness.js';
import { createCallGuard } from './receive/call-guard.js';
import { decodedService } from './receive/decoded-service.js';
import { requestShapes } from './receive/message-shapes.js';
import { MAX_REQUEST_BYTES } from './receive/request-bounds.js';
import { addReflection } from './reflection.js';
import { logFolderProblems, openAddOns } from './request/add-ons.js';
import { createPolicy, type Policy } from './request/policy.js';
import { createReferenceLoader } from './request/reference-loader.js';
import type { ServerState } from './state.js';
import { TokenizerCache } from './tokenize.js';

/** Calls of one connection at the same time. */
const MAX_STREAMS = 1000;
/** A connection without calls is closed after this time, in ms. */
const IDLE_MS = 300_000;
/** Time that running calls have to read their last events after all jobs ended, in ms. */
const CLOSE_GRACE_MS = 5000;
/**
 * Time for which a server that drains keeps a result that nobody has fetched, and age of such a result before the drain: its bridge was
 * replaced, too, perhaps before it, and comes back.
 */
const UNFETCHED_MS = 30_000;
const UNFETCHED_POLL_MS = 100;
/** Services whose health follows the models. */
const SERVICES = ['', 'darkroom.v1.InferenceService'] as const;

export interface ServerOptions {
  readonly config: Config;
  readonly log: Logger;
  /** The caller starts them; jobs wait until they are ready. Several of one model share its queue. */
  readonly engines: readonly Engine[];
  /** Memory of the engines' devices; the language model must have the same. Default: a ledger of these engines. */
  readonly memory?: DeviceLedgers | undefined;
  /** The engine that enhances prompts. It starts when a prompt comes. Omitted: prompts are used as they are. */
  readonly textEngine?: OnDemandEngine<TextWork> | undefined;
  /** Families of the engines' models. Default: the built-in families. */
  readonly families?: Families;
  /** Default: those of the contract. */
  readonly jobTypes?: JobTypes;
  /** For a client in the same process, such as a bridge: its token, which may do everything. */
  readonly ownToken?: string | undefined;
  /** Fetches references. Default: as the configuration says. */
  readonly fetcher?: ReferenceFetcher;
  /** The program of the thread that reads files beside checkpoints. Default: the build's. */
  readonly addOnThread?: URL;
  /** What measures the server. Default: nothing. */
  readonly observers?: readonly CreateServerObserver[];
}

export interface RunningServer {
  /** The bound port. */
  readonly port: number;
  /** Address for a client in the same process. */
  readonly localAddress: string;
  /** Says why a job would not be taken and run now; undefined if one would. @param model undefined: any model */
  notReady(model?: string): string | undefined;
  /** Accepts no more jobs, lets the accepted ones end (DRAIN_TIMEOUT_MS at most), then closes. */
  drain(): Promise<void>;
  /** Cancels running jobs and closes. */
  close(): Promise<void>;
}

/** Binds the gRPC server and serves. */
export async function createServer(options: ServerOptions): Promise<RunningServer> {
  const { config, log, engines, fetcher, families = builtInFamilies, jobTypes = contractJobTypes } = options;
  const { memory = new DeviceLedgers(config, engines) } = options;
  const access = await openAccess(config, log, options.ownToken);
  const policy = await createPolicy(config, log, (refusal) => access.audit?.record({ kind: 'policy', ...refusal }));
  const jobs = new JobStore({ maxJobs: config.JOB_RETENTION, maxBytes: config.JOB_RETENTION_BYTES });
  const observed: ObservedServer = {
    engines,
    textEngine: options.textEngine?.engine,
    jobTypes,
    depths: () => [...admission.depths, ...(enhancer === undefined ? [] : [enhancer.depth])],
  };
  const { observers = [] } = options;
  const observer = serverObserver(
    observers.map((create) => create(observed)),
    log,
  );
  const calls = { log, observer };
  const admission = new Admission({
    engines,
    memory,
    policy,
    limit: config.LIMIT_QUEUE,
    patienceMs: config.LORA_PATIENCE_MS,
    onEnd: (job, error) => endJob(job, error, { log, jobs, observer }),
    observer,
  });
  const enhancement = enhancementOf(options, policy);
  const { enhancer } = enhancement;
  const addOns = openAddOns(config, { log, threadEntry: options.addOnThread });
  await logFolderProblems(addOns, log);
  const state: ServerState = {
    config,
    families,
    jobTypes,
    engines,
    memory,
    jobs,
    admission,
    ffmpeg: await findFfmpeg(config.FFMPEG_PATH),
    references: createReferenceLoader(config, fetcher),
    addOns,
    tokenizers: new TokenizerCache(families),
    enhancement,
    policy,
    access,
    calls,
    engine: (model) => engineOf(engines, model),
  };
  const descriptors = fromBinary(
    FileDescriptorSetSchema,
    readFileSync(new URL('../gen/descriptors.binpb', import.meta.url)),
  );
  const server = new Server({
    interceptors: [createCallGuard({ config, access, shapes: requestShapes(descriptors), ...calls })],
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
    'grpc.max_concurrent_streams': MAX_STREAMS,
    // A connection that says nothing, or whose client vanished without closing it, is closed within half a minute.
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
    // Clients connect again without an error.
    'grpc.max_connection_idle_ms': IDLE_MS,
  });
  server.addService(decodedService(InferenceServiceService, observer), createInferenceService(state));
  server.addService(decodedService(JobServiceService, observer), createJobService(state));
  server.addService(decodedService(ModelServiceService, observer), createModelService(state));
  const health = new HealthImplementation();
  health.setStatus('darkroom.v1.JobService', 'SERVING');
  health.setStatus('darkroom.v1.ModelService', 'SERVING');
  health.addToServer(server);
  if (config.REFLECTION !== 'off') addReflection(server, descriptors);
  let reported: boolean | undefined;
  const updateHealth = () => {
    // A language model loads on demand, so a server with nothing else serves.
    const hasEngine = engines.some(({ state }) => state !== 'failed' && state !== 'stopped');
    const canServe = !admission.draining && (hasEngine || (engines.length === 0 && enhancer !== undefined));
    // Watchers get changes only.
    if (canServe === reported) return;
    reported = canServe;
    for (const name of SERVICES) health.setStatus(name, canServe ? 'SERVING' : 'NOT_SERVING');
  };
  for (const engine of engines) engine.onStateChange(updateHealth);
  updateHealth();

  // grpc-js prints on standard error what the operator is told in our own words.
  const toLog = (...line: unknown[]) => log.debug({ line: line.join(' ') }, 'grpc-js');
  setLogger({ error: toLog, info: toLog, debug: toLog });
  const port = await bind(server, config.DARKROOM_LISTEN, access.listener.credentials);
  const local = access.listener.isEncrypted && options.ownToken !== undefined ? await LocalSocket.create() : undefined;
  if (local !== undefined) await bind(server, local.address, ServerCredentials.createInsecure());
  const close = async () => {
    admission.close();
    const stopping = new InferenceError('DRAINING', 'the server is stopping', { retryAfterMs: 5000 });
    jobs.cancelAll(stopping);
    await Promise.race([
      new Promise<void>((resolve) => server.tryShutdown(() => resolve())),
      new Promise<void>((resolve) => setTimeout(resolve, CLOSE_GRACE_MS).unref()),
    ]);
    server.forceShutdown();
    await local?.remove();
    await access.close();
  };
  return {
    port,
    localAddress: local?.address ?? `${connectableHost(config.DARKROOM_LISTEN)}:${port}`,
    notReady: (model) => notReady({ engines, admission, enhancer }, model),
    close,
    async drain() {
      const began = new Date();
      const drained = Promise.all([admission.drain(), enhancer?.idle()]);
      updateHealth();
      log.info({ running: admission.running, waiting: admission.waiting }, 'draining');
      await Promise.race([drained, sleep(config.DRAIN_TIMEOUT_MS, undefined, { ref: false })]);
      const since = new Date(began.getTime() - UNFETCHED_MS);
      const until = Math.min(Date.now() + UNFETCHED_MS, began.getTime() + config.DRAIN_TIMEOUT_MS);
      while (jobs.unfetched(since) > 0 && Date.now() < until) await sleep(UNFETCHED_POLL_MS);
      await close();
    },
  };
}

/** An engine of a model: one that has read its checkpoint once, if there is one. */
function engineOf(engines: readonly Engine[], model: string): Engine | undefined {
  const all = engines.filter(({ spec }) => spec.model === model);
  return all.find(({ info }) => info) ?? all[0];
}

function enhancementOf({ config, log, textEngine }: ServerOptions, policy: Policy): EnhancementOptions {
  const timeoutMs = config.ENHANCE_TIMEOUT_MS;
  if (textEngine === undefined) return { enhancer: undefined, defaults: builtInTemplate, timeoutMs, log };
  const { template, parallel } = textEngine.engine.spec.source;
  const limit = config.LIMIT_QUEUE;
  const enhancer = new PromptEnhancer({ onDemand: textEngine, parallel, limit, timeoutMs, policy });
  return { enhancer, defaults: template, timeoutMs, log };
}

function bind(server: Server, address: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (error === null) return resolve(port);
      const problem = /EADDRINUSE/.test(error.message) ? 'something else listens there' : error.message;
      const remedy = 'set another address in DARKROOM_LISTEN (--listen)';
      reject(
        new InferenceError('INVALID_REQUEST', `cannot listen on ${address}: ${problem}; ${remedy}`, { cause: error }),
      );
    });
  });
}
