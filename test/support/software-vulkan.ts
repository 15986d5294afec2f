import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface SoftwareVulkan {
  readonly name: string;
  /** Its adapters have 16-bit floats. */
  readonly hasHalf: boolean;
  /** Environment of a process that is to use it. */
  readonly env: Readonly<Record<string, string>>;
}

const unpacked = fileURLToPath(new URL('../../.lavapipe', import.meta.url));
/** Mesa before 25 lacks what WebGPU needs. */
const MESA = 25;
const SYSTEM_ICDS = '/usr/share/vulkan/icd.d';
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

/** WebGPU without a GPU: Mesa's lavapipe where it is new enough, else Chromium's SwiftShader; undefined where there is neither. */
export function softwareVulkan(): SoftwareVulkan | undefined {
  const env = { XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? '/tmp' };
  const lavapipe = { name: 'lavapipe', hasHalf: true } as const;
  // What scripts/setup-lavapipe.mjs unpacked: its libraries are found by path.
  const own = join(unpacked, 'lvp_icd.json');
  if (existsSync(own)) {
    const libraries = readdirSync(join(unpacked, 'usr/lib')).map((folder) => join(unpacked, 'usr/lib', folder));
    const cache = join(unpacked, 'shaders');
    const paths = { VK_DRIVER_FILES: own, LD_LIBRARY_PATH: libraries.join(':'), MESA_SHADER_CACHE_DIR: cache };
    return { ...lavapipe, env: { ...env, ...paths } };
  }
  const [installed] = existsSync(SYSTEM_ICDS)
    ? readdirSync(SYSTEM_ICDS).filter((name) => name.startsWith('lvp_icd'))
    : [];
  if (installed !== undefined && mesaVersion() >= MESA) {
    return { ...lavapipe, env: { ...env, VK_DRIVER_FILES: join(SYSTEM_ICDS, installed) } };
  }
  if (!existsSync(SWIFTSHADER)) return undefined;
  return { name: 'SwiftShader', hasHalf: false, env: { ...env, VK_DRIVER_FILES: SWIFTSHADER } };
}

function mesaVersion(): number {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own syntax
  const query = ['--show', '--showformat', '${Version}', 'mesa-vulkan-drivers'];
  try {
    return Number.parseInt(execFileSync('dpkg-query', query, { encoding: 'utf8', stdio: 'pipe' }), 10);
  } catch {
    return 0;
  }
}
