import { Command } from 'commander';
import type { BridgeConfig } from '../config/bridge-config.js';
import { readBridgeConfig, readConfig } from '../config/server-config.js';
import { createEngines, createTextEngine } from '../engine/create-engines.js';
import { InferenceError } from '../errors.js';
import { createLog } from '../log.js';
import { createServer } from '../server/server.js';
import { runBridge } from './bridge.js';
import { type SourceOptions, sourceOptions, sourceVariables } from './options/source-options.js';

interface ServeOptions extends SourceOptions {
  readonly listen?: string;
  readonly sdxl?: string;
  readonly wan?: string;
  readonly qwen?: string;
  readonly loraDir?: string;
  readonly lora?: readonly string[];
  readonly device?: string;
  readonly withBridge?: boolean;
}

export function createServeCommand(): Command {
  const command = new Command('serve')
    .description('serve models over gRPC until SIGTERM; every option has a variable, see docs/reference/config.md')
    .option('--listen <host:port>', 'address (DARKROOM_LISTEN)')
    .option('--sdxl <path>', 'SDXL checkpoint: diffusers-layout folder or .safetensors file (SDXL_PATH)')
    .option('--wan <path>', "WAN 2.1 checkpoint: diffusers-layout folder or the original code's (WAN_PATH)")
    .option('--qwen <path>', 'Qwen2 or Qwen2.5 that enhances prompts: a GGUF file or a safetensors folder (QWEN_PATH)')
    .option('--lora-dir <folder>', 'folder of LoRA files that requests may name (LORA_DIR)')
    .option('--lora <name=path...>', 'LoRA files outside of it (LORA_FILES)')
    .option('--device <name>', 'auto, cuda, tensorrt, webgpu or cpu (DEVICE)')
    .option('--with-bridge', 'take jobs from Redis as well, as darkroom bridge does')
    .action(serve);
  for (const option of sourceOptions()) command.addOption(option);
  return command;
}

async function serve(options: ServeOptions): Promise<void> {
  const { listen, sdxl, wan, qwen, loraDir, lora, device, withBridge, ...source } = options;
  const config = readConfig(process.env, {
    ...(listen !== undefined && { DARKROOM_LISTEN: listen }),
    ...(sdxl !== undefined && { SDXL_PATH: sdxl }),
    ...(wan !== undefined && { WAN_PATH: wan }),
    ...(qwen !== undefined && { QWEN_PATH: qwen }),
    ...(loraDir !== undefined && { LORA_DIR: loraDir }),
    ...(lora !== undefined && { LORA_FILES: lora.join(',') }),
    ...(device !== undefined && { DEVICE: device }),
    ...sourceVariables(source),
  });
  const log = createLog(config.LOG_LEVEL);
  const bridgeConfig = withBridge ? bridgeConfigOf() : undefined;
  const engines = createEngines(config, log);
  const textEngine = await createTextEngine(config, log, engines);
  const server = await createServer({ config, log, engines, textEngine });
  const stopEngines = () => Promise.all([...engines.map((engine) => engine.stop()), textEngine?.stop()]);
  const host = config.DARKROOM_LISTEN.replace(/:\d+$/, '');
  process.stdout.write(`darkroom listens on ${host}:${server.port}\n`);
  const own = `${/^(0\.0\.0\.0|\[::\])$/.test(host) ? '127.0.0.1' : host}:${server.port}`;
  const bridge = bridgeConfig && (await runBridge({ ...bridgeConfig, DARKROOM_SERVER: [own] }, log, true));

  let isStopping = false;
  const stop = async () => {
    // A second signal does not wait.
    if (isStopping) process.exit(1);
    isStopping = true;
    // First the jobs that it can give back, then the server's own.
    await bridge?.stop();
    await server.drain();
    await stopEngines();
    process.exit(0);
  };
  process.on('SIGTERM', () => void stop());
  process.on('SIGINT', () => void stop());

  try {
    await Promise.all(engines.map((engine) => engine.start()));
  } catch (error) {
    if (isStopping) return;
    await bridge?.stop();
    await server.close();
    await stopEngines();
    throw error;
  }
  for (const { spec, device: runsOn } of engines) process.stdout.write(`model ${spec.model} is ready on ${runsOn}\n`);
}

/** @throws InferenceError where there is no queue that others can push to */
function bridgeConfigOf(): BridgeConfig {
  const config = readBridgeConfig();
  if (config.REDIS_URL !== undefined || config.UPSTASH_REDIS_REST_URL !== undefined) return config;
  throw new InferenceError(
    'INVALID_REQUEST',
    '--with-bridge needs a queue: set REDIS_URL, or UPSTASH_REDIS_REST_URL and its token',
  );
}
