import { type Device, type DeviceAddress, deviceName, devices } from '../device.js';

const ENTRY = /^([a-z]+)(?::(\d{1,3}))?$/;

/**
 * Parses a list of devices such as `cuda:0,cuda:1` or `cpu,cpu`. An entry without an index takes the lowest one of its provider that
 * no other entry has.
 * @returns the addresses in their order, or what is wrong
 */
export function parseDeviceList(list: string): readonly DeviceAddress[] | string {
  const entries = list.split(',').flatMap((entry) => entry.trim() || []);
  const parsed = entries.map((entry) => {
    const [, device, index] = ENTRY.exec(entry) ?? [];
    return { entry, device, index: index === undefined ? undefined : Number(index) };
  });
  const taken = new Set<string>();
  for (const { entry, device, index } of parsed) {
    if (device === undefined || device === 'auto' || !devices.some((known) => known === device))
      return `"${entry}" must be one of ${devices.slice(1).join(', ')}, with or without an index, for example cuda:1`;
    if (index === undefined) continue;
    const name = deviceName(device, index);
    if (taken.has(name))
      return `"${name}" is named twice; name each device once, and set SDXL_REPLICAS or WAN_REPLICAS`;
    taken.add(name);
  }
  return parsed.map(({ device = '', index }): DeviceAddress => {
    let free = index ?? 0;
    if (index === undefined) while (taken.has(deviceName(device, free))) free += 1;
    taken.add(deviceName(device, free));
    return { device: device as Device, index: free };
  });
}
