/** Devices that a model runs on. `auto` takes the best provider that really opens. */
export const devices = ['auto', 'cuda', 'tensorrt', 'webgpu', 'cpu'] as const;
export type Device = (typeof devices)[number];

/** An execution provider of the runtime: a device that has been chosen. */
export type Provider = Exclude<Device, 'auto'>;
