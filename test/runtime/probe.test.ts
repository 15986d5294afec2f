import { existsSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { chooseDevice } from '../../src/runtime/probe.js';
import { softwareVulkan } from '../support/software-vulkan.js';
import { tempFolder } from '../support/temp-folder.js';

afterEach(() => vi.unstubAllEnvs());

const vulkan = softwareVulkan();
const hasGpu = ['/dev/dri', '/dev/nvidiactl', '/dev/dxg'].some(existsSync);

describe('chooseDevice()', () => {
  it.skipIf(vulkan === undefined || hasGpu)(
    'takes the CPU itself where Vulkan runs on it, whatever the driver is called',
    async () => {
      // As a distribution installs it: no variable tells its name.
      const driver = join(await tempFolder(), 'driver.json');
      await copyFile(vulkan?.env.VK_DRIVER_FILES ?? '', driver);
      for (const [name, value] of Object.entries({ ...vulkan?.env, VK_DRIVER_FILES: driver })) vi.stubEnv(name, value);
      const { device, rejected } = await chooseDevice('auto');
      expect(device).toBe('cpu');
      expect(rejected.map(({ provider }) => provider)).toEqual(['cuda', 'webgpu']);
      expect(rejected[1]?.detail).toBe('the Vulkan driver runs on the CPU; ask for it with DEVICE=webgpu');
    },
    60_000,
  );
});
