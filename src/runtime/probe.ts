import { fork } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Device, Provider } from '../device.js';
import { environment, vulkanDriverFiles } from '../environment.js';
import { InferenceError } from '../errors.js';
import type { RuntimeName } from './runtime-names.js';

export interface ProbeResult {
  readonly provider: Provider;
  readonly opens: boolean;
  /** Reason why it does not open, or what was measured. */
  readonly detail: string;
  /** Remedy where it does not open. */
  readonly fix?: string;
}

/** A driver that hangs must not hang the doctor. */
const PROBE_TIMEOUT_MS = 60_000;

const FIXES: Readonly<Record<Provider, string>> = {
  cpu: 'run npm ci again',
  webgpu:
    'install the GPU driver and what its Vulkan part loads (apt-get install libvulkan1 libegl1 libxext6); set XDG_RUNTIME_DIR, and VK_DRIVER_FILES where the driver is not found',
  cuda: 'run npm run setup:cuda',
  tensorrt: 'run npm run setup:cuda, and install TensorRT 10',
};

/** Folders where the Vulkan loader looks for the files of drivers. https://vulkan.lunarg.com/doc/view/latest/linux/LoaderDriverInterface.html */
const DRIVER_FOLDERS = ['/usr/local/etc', '/usr/local/share', '/etc', '/usr/share'].map((folder) =>
  join(folder, 'vulkan/icd.d'),
);

/** Names of the drivers that the Vulkan loader finds: those that a variable names, else the installed ones. */
function vulkanDrivers(): readonly string[] {
  const named = vulkanDriverFiles();
  if (named !== '')
    return named
      .split(delimiter)
      .filter(existsSync)
      .map((file) => basename(file));
  return DRIVER_FOLDERS.flatMap((folder) => (existsSync(folder) ? readdirSync(folder) : [])).filter((name) =>
    name.endsWith('.json'),
  );
}

/** @param detail why the provider does not open */
function fixOf(provider: Provider, detail: string): string {
  const drivers = provider === 'webgpu' && /no supported adapters/i.test(detail) ? vulkanDrivers() : [];
  if (drivers.length === 0) return FIXES[provider];
  const folder = environment().XDG_RUNTIME_DIR ? '' : ', set XDG_RUNTIME_DIR';
  return `a Vulkan driver is there (${drivers.join(', ')}), but it probably lacks what WebGPU needs, as Mesa before 25 does: update it; if it is new enough, install what it loads (apt-get install libvulkan1 libegl1 libxext6)${folder}`;
}

export interface ProbeOptions {
  /** Omitted: `auto`. */
  readonly runtime?: RuntimeName | undefined;
  readonly providerLibrary?: string | undefined;
  /** Omitted: 0, the first card. */
  readonly deviceId?: number | undefined;
}

/** Opens a one-op session in a process of its own: a driver's crash is an answer, not an accident. */
export function probeProvider(
  provider: Provider,
  { runtime = 'auto', providerLibrary = '', deviceId = 0 }: ProbeOptions = {},
): Promise<ProbeResult> {
  // Built and as source, the program lies beside this file; only the build can be run.
  const program = fileURLToPath(new URL('./probe-process.js', import.meta.url));
  return new Promise((resolve) => {
    const child = fork(program, [provider, runtime, providerLibrary, String(deviceId)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      timeout: PROBE_TIMEOUT_MS,
    });
    let answer: string | undefined;
    let complaint = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(-2000);
    });
    child.on('message', (message) => {
      answer = String(message);
    });
    child.on('error', (error) => {
      complaint = error.message;
    });
    child.on('close', (code, signal) => {
      if (answer?.startsWith('ok ')) {
        return resolve({ provider, opens: true, detail: `opens, with ${answer.slice('ok '.length)}` });
      }
      const detail = readable(
        answer ?? (complaint.trim().split('\n').at(-1) || `the probe ended with ${signal ?? `code ${code}`}`),
      );
      resolve({ provider, opens: false, detail, fix: fixOf(provider, detail) });
    });
  });
}

/** The runtime's message without its source lines; its word for libraries that npm did not bring. */
function readable(message: string): string {
  if (/Failed to load shared library|providers_\w+\.so: cannot open/.test(message))
    return 'its libraries are not installed';
  return message.replace(/^\/onnxruntime_src\/.* was false\. /, '');
}

export interface DeviceChoice {
  readonly device: Provider;
  /** With `auto`: the better providers that do not open. */
  readonly rejected: readonly ProbeResult[];
}

/** Best first. A Vulkan driver on the CPU is slower than the CPU provider itself: never taken unasked. */
const PREFERENCE: readonly Provider[] = ['cuda', 'webgpu', 'cpu'];

/** @throws InferenceError PROVIDER_UNAVAILABLE for a named device that does not open, with the fix */
export async function chooseDevice(device: Device, options: ProbeOptions = {}): Promise<DeviceChoice> {
  if (device === 'cpu') return { device, rejected: [] };
  const rejected: ProbeResult[] = [];
  for (const provider of device === 'auto' ? PREFERENCE : [device]) {
    const result = await usable(provider, device === 'auto', options);
    if (result.opens) return { device: provider, rejected };
    rejected.push(result);
  }
  const [first] = rejected;
  throw new InferenceError(
    'PROVIDER_UNAVAILABLE',
    `device ${device} does not open: ${first?.detail}; ${first?.fix ?? 'see darkroom doctor'}, or set DEVICE=cpu`,
  );
}

async function usable(provider: Provider, automatic: boolean, options: ProbeOptions): Promise<ProbeResult> {
  if (provider === 'cpu') return { provider, opens: true, detail: 'opens' };
  if (automatic && provider === 'webgpu' && usesSoftwareVulkan()) {
    const detail =
      vulkanDrivers().length === 0
        ? 'this machine has no GPU and no Vulkan driver'
        : 'the Vulkan driver runs on the CPU and is slower than DEVICE=cpu; darkroom doctor shows whether DEVICE=webgpu opens it';
    return { provider, opens: false, detail };
  }
  return probeProvider(provider, options);
}

// The Vulkan loader's own variables select its driver. Without a GPU it can only be one on the CPU: Debian's mesa-vulkan-drivers
// brings such a one.
function usesSoftwareVulkan(): boolean {
  return /swiftshader|lvp_icd|llvmpipe/i.test(vulkanDriverFiles()) || !hasGpu();
}

/** Linux: a render node of DRM, NVIDIA's driver, or WSL's. Other systems bring their own driver of the GPU that they have. */
function hasGpu(): boolean {
  if (process.platform !== 'linux') return true;
  const renderNodes = existsSync('/dev/dri')
    ? readdirSync('/dev/dri').filter((name) => name.startsWith('renderD'))
    : [];
  return renderNodes.length > 0 || existsSync('/dev/nvidiactl') || existsSync('/dev/dxg');
}
