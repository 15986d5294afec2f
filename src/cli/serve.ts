import { randomUUID } from 'node:crypto';
import { Command, Option } from 'commander';
import { connect } from '../client/client.js';
import type { BridgeConfig } from '../config/bridge-config.js';
import { readBridgeConfig } from '../config/bridge-config.js';
import { type Config, readConfig } from '../config/server-config.js';
import { deviceName } from '../device.js';
import { createEngines, createTextEngine } from '../engine/create-engines.js';
import { DeviceLedgers } from '../engine/device-ledgers.js';
import { engineName } from '../engine/messages.js';
import { planPlacement } from '../engine/place-engines.js';
import { environment } from '../environment.js';
import { InferenceError } from '../errors.js';
import { createLog, type Logger } from '../log.js';
import { builtInFamilies } from '../pipelines/families.js';
import { TraceIds } from '../server/observe/trace-ids.js';
import { watchServer } from '../server/observe/watch-server.js';
import { createServer, type RunningServer } from '../server/server.js';
import { withoutPort } from '../std/address.js';
import { addFamilyOptions, familyVariables } from './options/family-options.js';
import { say } from './output/say.js';
import { onShutdown } from './shutdown.js';

/** Options of `serve` that belong to no family, by the variable that each sets. */
const OPTIONS = {
  DARKROOM_LISTEN: new Option('--listen <host:port>', 'address (DARKROOM_LISTEN)'),
  QWEN_PATH: new Option(
    '--qwen <path>',
    'Qwen2 or Qwen2.5 that enhances prompts: a GGUF file or a safetensors folder (QWEN_PATH)',
  ),
  LORA_DIR: new Option('--lora-dir <folder>', 'folder of LoRA files that requests may name (LORA_DIR)'),
  EMBEDDING_DIR: new Option('--embedding-dir <folder>', 'folder of embeddings that prompts may name (EMBEDDING_DIR)'),
  CONTROLNET_DIR: new Option(
    '--controlnet-dir <folder>',
    'folder of ControlNets that requests may name (CONTROLNET_DIR)',
  ),
  UPSCALER_DIR: new Option('--upscaler-dir <folder>', 'folder of upscalers that requests may name (UPSCALER_DIR)'),
  LORA_FILES: new Option('--lora <name=path...>', 'LoRA files outside of it (LORA_FILES)'),
  DEVICE: new Option('--device <name>', 'auto, cuda, tensorrt, webgpu or cpu (DEVICE)'),
  DEVICES: new Option('--devices <list>', 'devices that models are placed on, for example cuda:0,cuda:1 (DEVICES)'),
  PRECISION: new Option('--precision <name>', 'auto, fp32, fp16 or bf16 (PRECISION)'),
} as const satisfies Partial<Record<keyof Config, Option>>;

interface ServeOptions extends Readonly<Record<string, unknown>> {
  readonly withBridge?: boolean;
  /** True: the page listens where WEB_LISTEN says. */
  readonly web?: string | true;
}

export function createServeCommand(): Command {
  const command = new Command('serve').description(
    'serve models over gRPC until SIGTERM; every option has a variable, see docs/reference/config.md',
  );
  addFamilyOptions(command, builtInFamilies, true);
  for (const option of Object.values(OPTIONS)) command.addOption(option);
  return command
    .option('--with-bridge', 'take jobs from Redis as well, as darkroom bridge does')
    .option('--web [host:port]', 'serve the page as well, as darkroom web does (WEB_LISTEN)')
    .action(serve);
}

async function serve({ withBridge, web, ...options }: ServeOptions): Promise<void> {
  const own = Object.entries(OPTIONS).flatMap(([variable, option]) => {
    const value = options[option.attributeName()];
    return value === undefined ? [] : [[variable, String(value)] as const];
  });
  const config = readConfig(environment(), {
    ...familyVariables(options, builtInFamilies),
    ...Object.fromEntries(own),
  });
  const traceIds = new TraceIds();
  const log = createLog(config.LOG_LEVEL, traceIds.fieldsOf);
  const bridgeConfig = withBridge ? bridgeConfigOf() : undefined;
  const engines = createEngines({ config, log, placement: await planPlacement(config, log) });
  const memory = new DeviceLedgers(config, engines);
  const textEngine = await createTextEngine(config, log, memory);
  const watch = await watchServer({ config, log, traceIds });
  const ownToken = withBridge || web !== undefined ? randomUUID() : undefined;
  const openPage = web === undefined ? undefined : await pageOf(web, log);
  const server = await createServer({
    config,
    log,
    engines,
    memory,
    textEngine,
    ownToken,
    observers: watch.observers,
  });
  await watch.listen(server.notReady);
  const stopEngines = () => Promise.all([...engines.map((engine) => engine.stop()), textEngine?.stop()]);
  const host = withoutPort(config.DARKROOM_LISTEN);
  say(`darkroom listens on ${host}:${server.port}`);
  const bridge = bridgeConfig && (await bridgeOf({ ...bridgeConfig, ...connectionTo(server, ownToken) }, log));
  const page = await openPage?.(server);

  const { isStopping } = onShutdown(
    async () => {
      await page?.close();
      // First the jobs that the bridge can give back, then the server's own.
      await bridge?.stop();
      await server.drain();
      await stopEngines();
      await watch.stop();
    },
    config.DRAIN_TIMEOUT_MS + (bridgeConfig?.BRIDGE_DRAIN_MS ?? 0),
  );

  try {
    await Promise.all(engines.map((engine) => engine.start()));
  } catch (error) {
    if (isStopping()) return;
    await page?.close();
    await bridge?.stop();
    await server.close();
    await stopEngines();
    await watch.stop();
    throw error;
  }
  for (const { spec, device = spec.device } of engines) {
    const place = config.DEVICES === undefined ? device : deviceName(device, spec.deviceId ?? 0);
    say(`model ${engineName(spec)} is ready on ${place}`);
  }
}

/**
 * Reads what the page needs, before the server starts. The page has no token of its own: where the server wants one, it asks.
 * @throws InferenceError INVALID_REQUEST for a malformed address
 */
async function pageOf(web: string | true, log: Logger) {
  const { readWebConfig } = await import('../config/web-config.js');
  const { openPage } = await import('./web/open-page.js');
  const config = readWebConfig(undefined, web === true ? {} : { WEB_LISTEN: web });
  return ({ localAddress }: RunningServer) =>
    openPage({ config, log, client: connect(localAddress), queue: readBridgeConfig() });
}

/** Imported when it is asked for, as the clients of its queues are. */
async function bridgeOf(config: BridgeConfig, log: Logger) {
  const { runBridge } = await import('../queue-bridge/run-bridge.js');
  return runBridge({ config, log, endsServer: true });
}

/** How the bridge in the same process reaches the server, whatever other clients need. */
function connectionTo({ localAddress }: RunningServer, token: string | undefined): Partial<BridgeConfig> {
  return {
    DARKROOM_SERVER: [localAddress],
    DARKROOM_TOKEN: token,
    DARKROOM_TOKEN_FILE: undefined,
    DARKROOM_TLS: undefined,
    DARKROOM_CA: undefined,
    DARKROOM_CERT: undefined,
    DARKROOM_KEY: undefined,
  };
}

/** @throws InferenceError INVALID_REQUEST if no shared queue is configured */
function bridgeConfigOf(): BridgeConfig {
  const config = readBridgeConfig();
  if (config.REDIS_URL !== undefined || config.UPSTASH_REDIS_REST_URL !== undefined) return config;
  throw new InferenceError(
    'INVALID_REQUEST',
    '--with-bridge needs a queue: set REDIS_URL, or UPSTASH_REDIS_REST_URL and its token',
  );
}
