import { join } from 'node:path';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import { deviceName } from '../../src/device.js';
import { configuredDevices, placeEngines, planPlacement } from '../../src/engine/place-engines.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { tempFolder } from '../support/temp-folder.js';

const devicesOf = (DEVICES: string, others = {}) =>
  configuredDevices(readConfig({}, { DEVICES, ...others })).map(({ device, index }) => deviceName(device, index));

describe('DEVICES', () => {
  it.each([
    ['cuda:0,cuda:1', ['cuda:0', 'cuda:1']],
    ['cpu,cpu', ['cpu:0', 'cpu:1']],
    // The index that an entry names is not given to one that names none.
    ['cuda, cuda:0 ,cuda', ['cuda:1', 'cuda:0', 'cuda:2']],
  ])('reads %s', (list, devices) => {
    expect(devicesOf(list)).toEqual(devices);
  });

  it.each([
    ['gpu:0', /DEVICES "gpu:0": "gpu:0" must be one of cuda, tensorrt, webgpu, cpu/],
    ['auto', /"auto" must be one of/],
    ['cuda:x', /"cuda:x" must be one of/],
    ['cuda:0,cuda:0', /"cuda:0" is named twice.*SDXL_REPLICAS/],
    ['webgpu:0,webgpu:1', /WebGPU always takes the adapter that Vulkan lists first/],
  ])('refuses %s', (list, message) => {
    expect(() => devicesOf(list)).toThrow(message);
  });

  it('leaves the index of an adapter to a provider library, which has its own list', () => {
    expect(devicesOf('webgpu:1', { PROVIDER_LIBRARY: '/provider.so' })).toEqual(['webgpu:1']);
  });

  it('unset, is the device that DEVICE names', () => {
    expect(configuredDevices(readConfig({}, { DEVICE: 'cuda' }))).toEqual([{ device: 'cuda', index: 0 }]);
  });
});

describe('placing engines', () => {
  const cards = (...sizes: readonly number[]) =>
    sizes.map((bytes, index) => ({ address: { device: 'cuda' as const, index }, bytes }));
  const placed = (models: readonly (readonly [string, number, number])[], sizes: readonly number[]) =>
    Object.fromEntries(
      [
        ...placeEngines(
          models.map(([model, replicas, bytes]) => ({ model, replicas, bytes })),
          cards(...sizes),
        ),
      ].map(([model, devices]) => [model, devices.map(({ index }) => index)]),
    );

  it('gives the largest model the card with the most room, and the next one the other', () => {
    expect(placed([['sdxl', 1, 10], ['wan', 1, 23]], [24, 48])).toEqual({ wan: [1], sdxl: [1] }); // biome-ignore format: one case a line
    expect(placed([['sdxl', 1, 10], ['wan', 1, 23]], [24, 24])).toEqual({ wan: [0], sdxl: [1] }); // biome-ignore format: one case a line
  });

  it('spreads the engines of one model before a card gets a second one, whatever its room', () => {
    expect(placed([['sdxl', 2, 10]], [24, 80])).toEqual({ sdxl: [1, 0] });
    expect(placed([['sdxl', 3, 10]], [24, 80])).toEqual({ sdxl: [1, 0, 1] });
  });

  it('counts each engine in what a device is planned to take, also those of one model that share it', async () => {
    const SDXL_PATH = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny');
    const config = readConfig({}, { DEVICES: 'cpu,cpu', SDXL_PATH, SDXL_REPLICAS: '3' });
    const lines: string[] = [];
    await planPlacement(config, pino({}, { write: (line: string) => lines.push(line) }));
    const [first, second] = lines.map((line) => JSON.parse(line) as { models: string[]; neededBytes: number });
    expect([first?.models, second?.models]).toEqual([['sdxl', 'sdxl'], ['sdxl']]);
    expect(first?.neededBytes).toBe(2 * (second?.neededBytes ?? 0));
  });
});
