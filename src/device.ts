/** Devices that a model runs on. `auto` takes the best provider that really opens. */
export const devices = ['auto', 'cuda', 'tensorrt', 'webgpu', 'cpu'] as const;
export type Device = (typeof devices)[number];

/** An execution provider of the runtime: a device that has been chosen. */
export type Provider = Exclude<Device, 'auto'>;

/** True for the providers of an NVIDIA card, which take the index of one and share CUDA's libraries. */
export function isCuda(provider: Provider): provider is 'cuda' | 'tensorrt' {
  return provider === 'cuda' || provider === 'tensorrt';
}

/** One card of a provider. The CPU has one device, which may be named under several indexes. */
export interface DeviceAddress {
  readonly device: Device;
  /** CUDA's index in the order of the PCI bus, which is also that of nvidia-smi. */
  readonly index: number;
}

/** The address as configuration and API write it: `cuda:1`. */
export function deviceName(device: string, index: number): string {
  return `${device}:${index}`;
}

/** What a network computes in, as configuration, ListModels and messages name it. */
export type PrecisionName = 'fp32' | 'fp16' | 'bf16';

/** Values of PRECISION. `auto`: half precision where the provider's sums are float32, which is on CUDA. */
export const precisions = ['auto', 'fp32', 'fp16', 'bf16'] as const;
export type Precision = (typeof precisions)[number];

/** Values of GPU_TURNS: who goes first on a device that several engines share. */
export const turnPolicies = ['fair', 'images-first', 'off'] as const;
export type TurnPolicy = (typeof turnPolicies)[number];
