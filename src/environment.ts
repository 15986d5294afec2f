import { homedir } from 'node:os';
import { join } from 'node:path';

/** The only user of `process.env`: configuration, command line and runtime get the environment from here. */
export function environment(): NodeJS.ProcessEnv {
  return process.env;
}

/**
 * Keeps ONNX Runtime from sending its maker what sessions are opened and with what, and from writing that down in the home and temp
 * folders until it can. It reads the variable when its library is loaded; a value of the operator's stays.
 * https://github.com/microsoft/onnxruntime/pull/27379
 */
export function turnOffTelemetry(): void {
  process.env.ORT_DISABLE_TELEMETRY ??= '1';
}

/** Folder for files that can be made again: `$XDG_CACHE_HOME/darkroom`, else `~/.cache/darkroom`. */
export function cacheFolder({ XDG_CACHE_HOME }: NodeJS.ProcessEnv = environment()): string {
  return join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'darkroom');
}

/** Driver files that the Vulkan loader is limited to; empty where it looks for drivers itself. */
export function vulkanDriverFiles({ VK_DRIVER_FILES, VK_ICD_FILENAMES }: NodeJS.ProcessEnv = environment()): string {
  return VK_DRIVER_FILES ?? VK_ICD_FILENAMES ?? '';
}

/**
 * Name by which nvidia-smi knows a card: an index or a UUID. CUDA counts only the cards of CUDA_VISIBLE_DEVICES, the driver counts all.
 * @param index CUDA's
 */
export function visibleCard(index: number, { CUDA_VISIBLE_DEVICES = '' }: NodeJS.ProcessEnv = environment()): string {
  return CUDA_VISIBLE_DEVICES.split(',')[index]?.trim() || String(index);
}
