import { existsSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { chooseDevice } from '../../src/runtime/probe.js';
import { darkroom } from '../support/command-line.js';
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
      expect(rejected[1]?.detail).toBe(
        'the Vulkan driver runs on the CPU and is slower than DEVICE=cpu; darkroom doctor shows whether DEVICE=webgpu opens it',
      );
    },
    60_000,
  );

  it.skipIf(process.platform !== 'linux')(
    'says that a driver is there where none of its adapters is usable',
    async () => {
      const driver = join(await tempFolder(), 'old_icd.json');
      // A driver file whose library does not load gives no adapter, as an old driver does.
      const file = { file_format_version: '1.0.0', ICD: { library_path: '/nowhere/libold.so', api_version: '1.1.0' } };
      await writeFile(driver, JSON.stringify(file));
      const { stdout } = await darkroom(['doctor'], { env: { VK_DRIVER_FILES: driver, XDG_RUNTIME_DIR: '/tmp' } });
      expect(stdout).toMatch(
        /^no {2}webgpu .*No supported adapters\n +fix: a Vulkan driver is there \(old_icd\.json\), but it probably lacks what WebGPU needs, as Mesa before 25 does: update it; .*libxext6\)$/m,
      );
    },
    60_000,
  );
});
