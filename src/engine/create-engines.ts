import type { Config } from '../config/server-config.js';
import { estimateMemory } from '../enhancer/qwen/memory.js';
import { readTemplate } from '../enhancer/template.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { measureMemory } from '../runtime/device-memory.js';
import { createSupervisor, type Supervisor } from './engine.js';
import { MemoryLedger } from './memory-ledger.js';
import type { EngineSpec, TextWork } from './messages.js';
import { OnDemandEngine } from './on-demand-engine.js';

/** One supervised engine for every model that the configuration names. */
export function createEngines(config: Config, log: Logger): readonly Supervisor[] {
  const specs = [sdxlSpec(config), wanSpec(config)].filter((spec) => spec !== undefined);
  if (specs.length === 0 && config.QWEN_PATH === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      'no model: give --sdxl PATH or set SDXL_PATH to an SDXL checkpoint, a diffusers-layout folder or a .safetensors file, give --wan PATH for WAN 2.1, or --qwen PATH for a Qwen that enhances prompts',
    );
  }
  return specs.map((spec) =>
    createSupervisor({ spec, log, cancelBoundMs: config.CANCEL_BOUND_MS, hangTimeoutMs: config.HANG_TIMEOUT_MS }),
  );
}

/**
 * The language model that enhances prompts, loaded when the first one comes; undefined where the configuration names none.
 * @param residents engines that it has to fit beside
 * @throws InferenceError INVALID_REQUEST of the template
 */
export async function createTextEngine(
  config: Config,
  log: Logger,
  residents: readonly Supervisor[],
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
  const supervisor = createSupervisor<TextWork>({
    spec: { model: config.QWEN_NAME, family: 'qwen', source, device: config.DEVICE, threads: config.ENGINE_THREADS },
    log,
    entry,
    kind: 'on-demand',
    cancelBoundMs: config.CANCEL_BOUND_MS,
    hangTimeoutMs: config.HANG_TIMEOUT_MS,
  });
  // What was seen is better than what was reckoned.
  let measuredBytes: number | undefined;
  supervisor.onStateChange((state) => {
    if (state !== 'ready') return;
    const { device, info, peakBytes } = supervisor;
    measuredBytes = device === 'cpu' ? peakBytes : info?.memory.vram;
  });
  const ledger = new MemoryLedger({
    measure: () => measureMemory(config.DEVICE, residents),
    reserveBytes: config.MEMORY_RESERVE_BYTES,
  });
  const grant = async () => ledger.grant(config.QWEN_NAME, measuredBytes ?? (await estimateMemory(source)));
  return new OnDemandEngine({ supervisor, grant, idleMs: config.QWEN_IDLE_MS, log });
}

function sdxlSpec(config: Config): EngineSpec | undefined {
  if (config.SDXL_PATH === undefined) return undefined;
  return {
    model: config.SDXL_NAME,
    family: 'sdxl',
    source: {
      path: config.SDXL_PATH,
      tokenizer: config.SDXL_TOKENIZER,
      vae: config.SDXL_VAE,
      textEncoder: config.SDXL_TEXT_ENCODER,
      textEncoder2: config.SDXL_TEXT_ENCODER_2,
      predictionType: config.SDXL_PREDICTION_TYPE,
      zeroTerminalSnr: config.SDXL_ZERO_TERMINAL_SNR && config.SDXL_ZERO_TERMINAL_SNR === 'true',
    },
    device: config.DEVICE,
    threads: config.ENGINE_THREADS,
    batchPixels: config.BATCH_PIXELS,
    variants: config.LORA_VARIANTS,
    reserveBytes: config.MEMORY_RESERVE_BYTES,
  };
}

function wanSpec(config: Config): EngineSpec | undefined {
  if (config.WAN_PATH === undefined) return undefined;
  return {
    model: config.WAN_NAME,
    family: 'wan',
    source: {
      path: config.WAN_PATH,
      vae: config.WAN_VAE,
      textEncoder: config.WAN_TEXT_ENCODER,
      imageEncoder: config.WAN_IMAGE_ENCODER,
      tokenizer: config.WAN_TOKENIZER,
      keepsTextEncoder: config.WAN_TEXT_ENCODER_RESIDENT === 'true',
    },
    device: config.DEVICE,
    threads: config.ENGINE_THREADS,
    // Clips are denoised one at a time.
    batchPixels: 1,
    variants: config.LORA_VARIANTS,
    reserveBytes: config.MEMORY_RESERVE_BYTES,
  };
}
