import { type DestinationStream, pino } from 'pino';
import { inject } from 'vitest';
import { connect, type DarkroomClient, generate, listModels } from '../../src/client/client.js';
import { type Config, readConfig } from '../../src/config/server-config.js';
import { createEngines, createTextEngine } from '../../src/engine/create-engines.js';
import { DeviceLedgers } from '../../src/engine/device-ledgers.js';
import type { Engine } from '../../src/engine/engine.js';
import type { TextWork } from '../../src/engine/messages.js';
import type { OnDemandEngine } from '../../src/engine/on-demand-engine.js';
import { InferenceError } from '../../src/errors.js';
import type { JobEvent } from '../../src/gen/darkroom/v1/event.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import type { Asset, JobMetadata } from '../../src/gen/darkroom/v1/job.js';
import type { Model } from '../../src/gen/darkroom/v1/model_service.js';
import { TraceIds } from '../../src/server/observe/trace-ids.js';
import { watchServer } from '../../src/server/observe/watch-server.js';
import { createServer, type RunningServer, type ServerOptions } from '../../src/server/server.js';

/** The engines' programs: processes run the build, tests the source. */
export const engineEntry = new URL('../../dist/src/engine/image-process.js', import.meta.url);
export const textEngineEntry = new URL('../../dist/src/engine/text-process.js', import.meta.url);

export const addOnThread = new URL('../../dist/src/server/request/add-on-thread.js', import.meta.url);

export const silent = pino({ level: 'silent' });

export interface Serving {
  readonly engine: Engine;
  /** All engines, `engine` among them. */
  readonly engines: readonly Engine[];
  /** Where the variables name a language model. */
  readonly textEngine: OnDemandEngine<TextWork> | undefined;
  readonly server: RunningServer;
  readonly client: DarkroomClient;
  readonly config: Config;
  /** Base URL of its metrics, where METRICS_LISTEN is set. */
  readonly metricsUrl: string;
  stop(): Promise<void>;
}

/**
 * A real server on a free port over a real engine process with the tiny SDXL.
 * @param options `startsLater`: the engine is the test's to start; `withWan`: a second engine has the tiny WAN; `logTo`: the log;
 *   `memoryLimitBytes`: each engine's device has so much memory
 */
export async function serve(
  variables: Partial<Record<keyof Config, string>> = {},
  {
    textEntry = textEngineEntry,
    startsLater = false,
    withWan = false,
    memoryLimitBytes,
    logTo,
    statusMs,
    ...options
  }: Pick<ServerOptions, 'fetcher'> & {
    textEntry?: URL;
    startsLater?: boolean;
    withWan?: boolean;
    memoryLimitBytes?: number;
    logTo?: DestinationStream;
    statusMs?: number;
  } = {},
): Promise<Serving> {
  const config = readConfig(
    {},
    {
      DARKROOM_LISTEN: '127.0.0.1:0',
      DEVICE: 'cpu',
      METRICS_LISTEN: 'off',
      SDXL_PATH: inject('tinySdxl'),
      ...variables,
    },
  );
  // One engine: the one that the test is about.
  const named = config.WAN_PATH === undefined || withWan ? config : { ...config, SDXL_PATH: undefined };
  const traceIds = new TraceIds();
  const log = logTo === undefined ? silent : pino({ mixin: traceIds.fieldsOf }, logTo);
  const engines = createEngines({
    config: withWan ? { ...named, WAN_PATH: config.WAN_PATH ?? inject('tinyWan') } : named,
    log,
    entry: engineEntry,
    threads: 1,
    memoryLimitBytes,
    backoffMs: { initial: 50, max: 1000 },
  });
  const [engine] = engines;
  if (engine === undefined) throw new Error('no engine');
  const memory = new DeviceLedgers(config, engines);
  const textEngine = await createTextEngine(config, log, memory, textEntry);
  const watch = await watchServer({ config, log, traceIds, ...(statusMs !== undefined && { statusMs }) });
  const { observers } = watch;
  const server = await createServer({ config, log, engines, memory, textEngine, addOnThread, observers, ...options });
  const metrics = await watch.listen(server.notReady);
  if (!startsLater) await Promise.all(engines.map((one) => one.start()));
  const client = connect(
    `127.0.0.1:${server.port}`,
    config.AUTH_TOKEN === undefined ? {} : { token: config.AUTH_TOKEN },
  );
  return {
    engine,
    engines,
    textEngine,
    server,
    client,
    config,
    metricsUrl: `http://127.0.0.1:${metrics?.port}`,
    async stop() {
      client.close();
      await server.close();
      await Promise.all([...engines.map((one) => one.stop()), textEngine?.stop()]);
      await watch.stop();
    },
  };
}

/** A small picture: a few milliseconds of work. */
export const quick: Partial<GenerateRequest> = { prompt: 'a red circle', width: 64, height: 64, steps: 2, seed: 1n };

/** One run blocks the engine for seconds. */
export const slow: Partial<GenerateRequest> = { ...quick, width: 1024, height: 1024, steps: 40 };

export interface Outcome {
  readonly events: readonly JobEvent[];
  /** Whole files, in order. */
  readonly files: readonly Buffer[];
  readonly error: InferenceError | undefined;
}

/** Runs a job to its end. */
export async function outcomeOf(
  client: DarkroomClient,
  request: Partial<GenerateRequest>,
  { signal, onEvent }: { signal?: AbortSignal; onEvent?: (event: JobEvent) => void } = {},
): Promise<Outcome> {
  const events: JobEvent[] = [];
  let error: InferenceError | undefined;
  try {
    for await (const event of generate(client, request, signal)) {
      events.push(event);
      onEvent?.(event);
    }
  } catch (caught) {
    error = InferenceError.from(caught);
  }
  return { events, files: filesOf(events), error };
}

/** The quick job's image, in base64, from a server of these variables that serves it alone. @throws what the job failed with */
export async function imageWith(variables: Parameters<typeof serve>[0]): Promise<string | undefined> {
  const serving = await serve(variables);
  try {
    const { files, error } = await outcomeOf(serving.client, quick);
    if (error !== undefined) throw error;
    return files[0]?.toString('base64');
  } finally {
    await serving.stop();
  }
}

/** What a job ended with. @throws what it failed with, where it did not complete */
export function completed({ events, error }: Outcome): {
  readonly metadata: JobMetadata;
  readonly assets: readonly Asset[];
} {
  const { event } = events.at(-1) ?? {};
  if (event?.$case === 'completed' && event.value.metadata !== undefined)
    return { metadata: event.value.metadata, assets: event.value.assets };
  throw error ?? new Error(`ended with ${event?.$case}`);
}

/** Of a job that completed. */
export function metadataOf(outcome: Outcome): JobMetadata {
  return completed(outcome).metadata;
}

function filesOf(events: readonly JobEvent[]): readonly Buffer[] {
  const chunks: Buffer[][] = [];
  for (const { event } of events) {
    if (event?.$case !== 'assetChunk') continue;
    const { index, data } = event.value;
    chunks[index] = [...(chunks[index] ?? []), data];
  }
  return chunks.map((parts) => Buffer.concat(parts));
}

export function kinds(events: readonly JobEvent[]): readonly string[] {
  return events.map(({ event }) => event?.$case ?? 'nothing');
}

/** The models that a server lists. */
export async function modelsOf({ client }: Pick<Serving, 'client'>): Promise<readonly Model[]> {
  return (await listModels(client, 10_000)).models;
}

/** Resolves when a condition holds; the test's own timeout is the bound. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
