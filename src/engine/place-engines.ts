import type { Config } from '../config/server-config.js';
import { type DeviceAddress, deviceName, type Provider } from '../device.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { builtInFamilies } from '../pipelines/families.js';
import type { AnyFamily, Families } from '../pipelines/family.js';
import { measureMemory } from '../runtime/device-memory.js';
import { formatBytes } from '../std/format-bytes.js';
import { type PlannedDevice, planModel, plannedBytes } from './plan-model.js';

export interface ModelToPlace {
  readonly model: string;
  /** Engines that serve it. */
  readonly replicas: number;
  /** Memory that one engine is planned to take, in bytes. */
  readonly bytes: number;
}

export interface DeviceToFill {
  readonly address: DeviceAddress;
  /** Memory that engines may take, in bytes. */
  readonly bytes: number;
}

/** The device of each engine, by model. */
export type Placement = ReadonlyMap<string, readonly DeviceAddress[]>;

/**
 * Spreads engines over devices, the largest model first. Each engine goes to the device that has the fewest engines of its model; of
 * these to the one with the most room.
 */
export function placeEngines(models: readonly ModelToPlace[], devices: readonly DeviceToFill[]): Placement {
  const fills = devices.map(({ address, bytes }) => ({ address, room: bytes, models: [] as string[] }));
  const placed = new Map<string, DeviceAddress[]>();
  for (const { model, replicas, bytes } of [...models].sort((a, b) => b.bytes - a.bytes)) {
    const addresses: DeviceAddress[] = [];
    for (let replica = 0; replica < replicas; replica += 1) {
      const copies = (names: readonly string[]) => names.filter((name) => name === model).length;
      // A stable sort: equal devices keep the order of DEVICES.
      const [best] = [...fills].sort((a, b) => copies(a.models) - copies(b.models) || b.room - a.room);
      if (best === undefined) break;
      best.room -= bytes;
      best.models.push(model);
      addresses.push(best.address);
    }
    placed.set(model, addresses);
  }
  return placed;
}

/**
 * The devices that the configuration names.
 * @throws InferenceError INVALID_REQUEST for a device that the provider cannot choose
 */
export function configuredDevices({ DEVICE, DEVICES, PROVIDER_LIBRARY }: Config): readonly DeviceAddress[] {
  const devices = DEVICES === undefined || DEVICES.length === 0 ? [{ device: DEVICE, index: 0 }] : DEVICES;
  const unreachable = devices.find(({ device, index }) => device === 'webgpu' && index > 0);
  // ONNX Runtime's own WebGPU provider takes the adapter that the driver lists first, and has no option for another one.
  if (unreachable !== undefined && PROVIDER_LIBRARY === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      `DEVICES names ${deviceName('webgpu', unreachable.index)}, but WebGPU always takes the adapter that Vulkan lists first; name webgpu:0 alone, and run one server for each adapter`,
    );
  }
  return devices;
}

/** Places the engines of a configuration, and logs where they do not fit. With one device it reads no checkpoint. */
export async function planPlacement(
  config: Config,
  log: Logger,
  families: Families = builtInFamilies,
): Promise<Placement | undefined> {
  const addresses = configuredDevices(config);
  if (addresses.length === 1) return undefined;
  const [{ device }] = addresses as [DeviceAddress];
  const devices = await Promise.all(
    addresses.map(async (address) => {
      const { totalBytes } = await measureMemory(address.device, [], address.index);
      return { address, totalBytes, bytes: totalBytes - config.MEMORY_RESERVE_BYTES };
    }),
  );
  const memoryBytes = Math.min(...devices.map(({ totalBytes }) => totalBytes));
  const served = families.filter((family) => family.sourceFrom(config) !== undefined);
  const models = await Promise.all(
    served.map(async (family) => ({
      model: family.modelName(config),
      replicas: family.replicas?.(config) ?? 1,
      bytes: await bytesOf(family, config, { provider: device as Provider, memoryBytes }, log),
    })),
  );
  const placement = placeEngines(models, devices);
  for (const { address, bytes } of devices) {
    // One entry for each engine: replicas may share a device.
    const here = models.flatMap((model) =>
      (placement.get(model.model) ?? []).filter((place) => place === address).map(() => model),
    );
    const needed = here.reduce((sum, model) => sum + model.bytes, 0);
    const name = deviceName(address.device, address.index);
    log.info({ device: name, models: here.map(({ model }) => model), neededBytes: needed }, 'engines placed');
    if (needed > bytes)
      log.warn(
        { device: name },
        `its engines are planned to take ${formatBytes(needed)} of ${formatBytes(bytes)}; see darkroom doctor --plan`,
      );
  }
  return placement;
}

/** A checkpoint that cannot be planned is placed all the same: its engine reports what is wrong. */
async function bytesOf(family: AnyFamily, config: Config, device: PlannedDevice, log: Logger): Promise<number> {
  try {
    const planned = await planModel(family, config, device);
    return planned === undefined ? 0 : plannedBytes(planned);
  } catch (error) {
    log.warn({ err: error, family: family.name }, 'the memory of a model cannot be planned');
    return 0;
  }
}
