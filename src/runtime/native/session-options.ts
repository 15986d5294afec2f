import { plansBuffers, type SessionPlan } from '../network-session.js';
import type { Handle } from './handle.js';
import { LOG_LEVEL, type OrtLibrary } from './ort-library.js';

/** ORT_DISABLE_ALL and ORT_ENABLE_ALL */
const NO_OPTIMIZATIONS = 0;
const ALL_OPTIMIZATIONS = 99;

/** The options of a session, its provider among them. */
export function createSessionOptions(library: OrtLibrary, plan: SessionPlan): Handle {
  const { api } = library;
  const options = library.own('SessionOptions', api.call('CreateSessionOptions'));
  try {
    const level = plan.isOptimized ? NO_OPTIMIZATIONS : ALL_OPTIMIZATIONS;
    api.call('SetSessionGraphOptimizationLevel', options.pointer, level);
    if (plan.saveTo !== undefined) api.call('SetOptimizedModelFilePath', options.pointer, plan.saveTo);
    api.call('SetSessionLogSeverityLevel', options.pointer, LOG_LEVEL);
    if (!plansBuffers(plan)) api.call('DisableMemPattern', options.pointer);
    if (plan.threads > 0) api.call('SetIntraOpNumThreads', options.pointer, plan.threads);
    for (const [key, value] of Object.entries(plan.configEntries)) {
      api.call('AddSessionConfigEntry', options.pointer, key, value);
    }
    if (plan.provider === 'cpu' && plan.memoryLimitBytes !== undefined) {
      library.limitCpuArena(plan.memoryLimitBytes);
      api.call('AddSessionConfigEntry', options.pointer, 'session.use_env_allocators', '1');
    }
    appendProvider(library, options, plan);
    return options;
  } catch (error) {
    options.release();
    throw error;
  }
}

function appendProvider(library: OrtLibrary, options: Handle, plan: SessionPlan): void {
  const { api, environment } = library;
  const plugin = plan.runtime?.providerLibrary;
  if (plugin !== undefined && plan.provider !== 'cpu') {
    const devices = library.devicesOf(plugin);
    const device = devices[plan.deviceId];
    if (device === undefined)
      throw new Error(
        `the provider library ${plugin} has ${devices.length} devices, number ${plan.deviceId} is not one`,
      );
    api.call('SessionOptionsAppendExecutionProvider_V2', options.pointer, environment, [device], 1, [], [], 0);
    return;
  }
  switch (plan.provider) {
    case 'cpu':
      return; // always there
    case 'webgpu':
      api.call('SessionOptionsAppendExecutionProvider', options.pointer, 'WebGPU', [], [], 0);
      return;
    case 'cuda':
      withProviderOptions(library, 'CUDA', cudaOptions(plan), (pointer) =>
        api.call('SessionOptionsAppendExecutionProvider_CUDA_V2', options.pointer, pointer),
      );
      return;
    case 'tensorrt':
      withProviderOptions(library, 'TensorRT', { device_id: String(plan.deviceId) }, (pointer) =>
        api.call('SessionOptionsAppendExecutionProvider_TensorRT_V2', options.pointer, pointer),
      );
  }
}

/**
 * What the Node binding leaves at its defaults.
 * https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
 */
export function cudaOptions({
  deviceId,
  tf32 = true,
  memoryLimitBytes,
  keepsChannelsLast = false,
}: SessionPlan): Readonly<Record<string, string>> {
  return {
    device_id: String(deviceId),
    // The arena grows by what is asked for, not by powers of two.
    arena_extend_strategy: 'kSameAsRequested',
    // EXHAUSTIVE, the default, measures every algorithm for every new shape.
    cudnn_conv_algo_search: 'HEURISTIC',
    use_tf32: tf32 ? '1' : '0',
    prefer_nhwc: keepsChannelsLast ? '1' : '0',
    ...(memoryLimitBytes !== undefined && { gpu_mem_limit: String(memoryLimitBytes) }),
  };
}

function withProviderOptions(
  library: OrtLibrary,
  provider: 'CUDA' | 'TensorRT',
  values: Readonly<Record<string, string>>,
  append: (pointer: bigint) => void,
): void {
  const { api } = library;
  const options = library.own(`${provider}ProviderOptions`, api.call(`Create${provider}ProviderOptions`));
  try {
    const keys = Object.keys(values);
    api.call(`Update${provider}ProviderOptions`, options.pointer, keys, Object.values(values), keys.length);
    append(options.pointer);
  } finally {
    options.release();
  }
}
