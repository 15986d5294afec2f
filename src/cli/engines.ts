import type { Config } from '../config.js';
import type { EngineSpec } from '../engine/messages.js';
import { createSupervisor, type Supervisor } from '../engine/supervisor.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';

/** One supervised engine for every model that the configuration names. */
export function createEngines(config: Config, log: Logger): readonly Supervisor[] {
  const specs = [sdxlSpec(config), wanSpec(config)].filter((spec) => spec !== undefined);
  if (specs.length === 0) {
    throw new InferenceError(
      'INVALID_REQUEST',
      'no model: give --sdxl PATH or set SDXL_PATH to an SDXL checkpoint, a diffusers-layout folder or a .safetensors file, or give --wan PATH for WAN 2.1',
    );
  }
  return specs.map((spec) =>
    createSupervisor({ spec, log, cancelBoundMs: config.CANCEL_BOUND_MS, hangTimeoutMs: config.HANG_TIMEOUT_MS }),
  );
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
      tokenizer: config.WAN_TOKENIZER,
      keepsTextEncoder: config.WAN_TEXT_ENCODER_RESIDENT === 'true',
    },
    device: config.DEVICE,
    threads: config.ENGINE_THREADS,
    // Clips are denoised one at a time.
    batchPixels: 1,
  };
}
