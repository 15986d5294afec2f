import type { Config } from '../config/server-config.js';
import { type DeviceAddress, deviceName, type TurnPolicy } from '../device.js';
import { estimateMemory } from '../enhancer/qwen/memory.js';
import { readTemplate } from '../enhancer/template.js';
import { visibleCard } from '../environment.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { builtInFamilies } from '../pipelines/families.js';
import { type Families, flagOf } from '../pipelines/family.js';
import { groupBy } from '../std/group-by.js';
import type { DeviceLedgers } from './device-ledgers.js';
import { DeviceTurns } from './device-turns.js';
import { createEngine, type Engine, type EngineOptions } from './engine.js';
import type { EngineSpec, TextWork } from './messages.js';
import { OnDemandEngine } from './on-demand-engine.js';
import { configuredDevices, type Placement } from './place-engines.js';

export interface CreateEnginesOptions {
  readonly config: Config;
  readonly log: Logger;
  /** Default: the built-in families. */
  readonly families?: Families;
  /** Program of the engine processes. It must know the families. Default: darkroom's own program. */
  readonly entry?: URL;
  /** Default: that of `createEngine`. */
  readonly backoffMs?: NonNullable<EngineOptions['backoffMs']>;
  /** Threads of each CPU engine. Default: ENGINE_THREADS. */
  readonly threads?: number;
  /** Most memory of each engine's arena, in bytes. Default: no limit. */
  readonly memoryLimitBytes?: number | undefined;
  /** Devices of the engines, from `planPlacement`. Default: the devices take turns. */
  readonly placement?: Placement | undefined;
}

/**
 * Creates the engines of every model that the configuration names, one after the other. The caller starts them.
 * @throws InferenceError INVALID_REQUEST if the configuration names no model at all
 */
export function createEngines({
  config,
  log,
  families = builtInFamilies,
  threads = config.ENGINE_THREADS,
  placement,
  memoryLimitBytes,
  ...options
}: CreateEnginesOptions): readonly Engine[] {
  const devices = configuredDevices(config);
  const imageCheck =
    config.POLICY_IMAGE_MODEL === undefined
      ? undefined
      : { path: config.POLICY_IMAGE_MODEL, fail: config.POLICY_IMAGE_FAIL, frames: config.POLICY_IMAGE_FRAMES };
  const { MODEL_CACHE_DIR: folder, MODEL_CACHE_BYTES: maxBytes } = config;
  const modelCache = folder === undefined ? undefined : { folder, maxBytes };
  if (config.CPU_LINEAR === 'int8' && modelCache === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      'CPU_LINEAR=int8 keeps its weights in MODEL_CACHE_DIR; set it to a folder',
    );
  }
  const specs = families.flatMap((family): EngineSpec[] => {
    const source = family.sourceFrom(config);
    if (source === undefined) return [];
    const model = family.modelName(config);
    const replicas = family.replicas?.(config) ?? 1;
    const places = placement?.get(model) ?? [];
    return Array.from({ length: replicas }, (_, i) => {
      const { device, index } = (places[i] ?? devices[i % devices.length]) as DeviceAddress;
      return {
        model,
        engine: replicas === 1 ? undefined : `${model}-${i}`,
        family: family.name,
        source,
        device,
        deviceId: index,
        threads,
        runtime: config.RUNTIME,
        providerLibrary: config.PROVIDER_LIBRARY,
        precision: config.PRECISION,
        fuses: config.CUDA_FUSIONS === 'auto',
        // A limit of one pixel makes every image a batch of its own.
        batchPixels: family.isBatched ? config.BATCH_PIXELS : 1,
        variants: config.LORA_VARIANTS,
        reserveBytes: config.MEMORY_RESERVE_BYTES,
        imageCheck,
        memoryLimitBytes,
        packsWeights: config.CPU_WEIGHTS === 'packed',
        modelCache,
        quantises: config.CPU_LINEAR === 'int8',
        weightsCache: config.WEIGHTS_CACHE,
      };
    });
  });
  if (specs.length === 0 && config.QWEN_PATH === undefined) {
    throw new InferenceError('INVALID_REQUEST', `no model: ${waysToNameOne(families)}`);
  }
  const turnsOf = createTurns(config.GPU_TURNS, specs);
  return specs.map((spec) =>
    createEngine({
      spec: { ...spec, takesTurns: turnsOf(spec) && (config.GPU_TURNS === undefined ? 'gpu' : 'always') },
      turns: turnsOf(spec),
      log,
      cancelBoundMs: config.CANCEL_BOUND_MS,
      hangTimeoutMs: config.HANG_TIMEOUT_MS,
      ...options,
    }),
  );
}

/** The turns of each device that several engines are on. */
function createTurns(
  policy: TurnPolicy = 'fair',
  specs: readonly EngineSpec[],
): (spec: EngineSpec) => DeviceTurns | undefined {
  const shared = [...groupBy(specs, placeOf)].filter(([, engines]) => engines.length > 1);
  const turns = new Map(policy === 'off' ? [] : shared.map(([place]) => [place, new DeviceTurns({ policy })]));
  return (spec) => turns.get(placeOf(spec));
}

function placeOf({ device, deviceId = 0 }: EngineSpec): string {
  return deviceName(device, deviceId);
}

function waysToNameOne(families: Families): string {
  const ways = families.map(({ options, title }) => {
    const [[variable = '', option] = []] = Object.entries(options);
    return `give ${flagOf(option)} PATH or set ${variable} for ${title}`;
  });
  return [...ways, 'give --qwen PATH or set QWEN_PATH for a Qwen that enhances prompts'].join(', ');
}

/**
 * Creates the language model that enhances prompts. It loads when the first prompt comes. Returns undefined if the
 * configuration names none.
 * @param memory ledgers of the devices that the other engines are on
 * @throws InferenceError INVALID_REQUEST if the template is wrong
 */
export async function createTextEngine(
  config: Config,
  log: Logger,
  memory: DeviceLedgers,
  entry = new URL('./text-process.js', import.meta.url),
): Promise<OnDemandEngine<TextWork> | undefined> {
  const template = await readTemplate(config.ENHANCE_TEMPLATE);
  if (config.QWEN_PATH === undefined) return undefined;
  const source = {
    path: config.QWEN_PATH,
    type: config.QWEN_TYPE,
    cacheFolder: config.QWEN_CACHE,
    template,
    parallel: config.QWEN_PARALLEL,
  };
  const { device, index: deviceId } = deviceWithFewest(configuredDevices(config), memory);
  const engine = createEngine<TextWork>({
    spec: { model: config.QWEN_NAME, family: 'qwen', source, device, deviceId, threads: config.ENGINE_THREADS },
    log,
    env: onlyCard(config, deviceId),
    entry,
    kind: 'on-demand',
    cancelBoundMs: config.CANCEL_BOUND_MS,
    hangTimeoutMs: config.HANG_TIMEOUT_MS,
  });
  // Prefer the measured size to the estimate.
  let measuredBytes: number | undefined;
  engine.onStateChange((state) => {
    if (state !== 'ready') return;
    const { device, info, peakBytes } = engine;
    measuredBytes = device === 'cpu' ? peakBytes : info?.memory.vram;
  });
  const ledger = memory.of(device, deviceId);
  const grant = async () => ledger.grant(config.QWEN_NAME, measuredBytes ?? (await estimateMemory(source)));
  const onDemand = new OnDemandEngine({ engine, grant, idleMs: config.QWEN_IDLE_MS, log });
  ledger.onShortage(() => onDemand.endIfIdle());
  for (const neighbour of memory.neighbours(device, deviceId)) neighbour.onMemoryRequest(() => onDemand.endIfIdle());
  return onDemand;
}

/** The device that the fewest engines are on; the last of several, as models are placed from the first one on. */
function deviceWithFewest(devices: readonly DeviceAddress[], memory: DeviceLedgers): DeviceAddress {
  const enginesOn = ({ device, index }: DeviceAddress) => memory.neighbours(device, index).length;
  return devices.toReversed().reduce((best, next) => (enginesOn(next) < enginesOn(best) ? next : best));
}

/** llama.cpp spreads a model over all cards that it sees. */
function onlyCard({ DEVICES }: Config, deviceId: number): NodeJS.ProcessEnv {
  return DEVICES === undefined ? {} : { CUDA_VISIBLE_DEVICES: visibleCard(deviceId) };
}
