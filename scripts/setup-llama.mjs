// Installs node-llama-cpp, which enhances prompts, into .llama/: a package of its own beside darkroom's, with only the builds of
// llama.cpp that are asked for (all of them are 725 MB).
//   npm run setup:llama                  the CPU's, and CUDA's (13) where an NVIDIA driver is, else Vulkan's where a GPU is
//   npm run setup:llama -- --cpu         the CPU's alone
//   npm run setup:llama -- --cuda        the CPU's and CUDA's; --vulkan likewise
//   npm run setup:llama -- --if-missing  nothing where that version is there already
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { LLAMA_VERSION } = await import(join(root, 'dist/src/enhancer/llama.js'));
const { values } = parseArgs({
  options: {
    cpu: { type: 'boolean' },
    cuda: { type: 'boolean' },
    vulkan: { type: 'boolean' },
    'if-missing': { type: 'boolean' },
    into: { type: 'string' },
  },
});
const target = values.into ?? join(root, '.llama');
const machine = `${{ darwin: 'mac', win32: 'win' }[process.platform] ?? process.platform}-${process.arch}`;

const installed = versionOf('node-llama-cpp');
if (values['if-missing'] && installed === LLAMA_VERSION) process.exit(0);

const packages = ['node-llama-cpp', ...builds().map((build) => `@node-llama-cpp/${build}`)];
console.log(`installing ${packages.join(', ')} ${LLAMA_VERSION} into ${target}`);
mkdirSync(target, { recursive: true });
if (!existsSync(join(target, 'package.json'))) writeFileSync(join(target, 'package.json'), '{ "private": true }\n');
const { status } = spawnSync(
  'npm',
  [
    ...['install', '--prefix', target, '--no-audit', '--no-fund', '--loglevel', 'error'],
    // Its script would build what it does not find, and its optional packages are every build for this machine.
    ...['--ignore-scripts', '--omit=optional', '--save-exact'],
    ...packages.map((name) => `${name}@${LLAMA_VERSION}`),
  ],
  { stdio: 'inherit', cwd: target, shell: process.platform === 'win32' },
);
if (status !== 0 || versionOf('node-llama-cpp') !== LLAMA_VERSION) {
  console.error('setup:llama: npm could not install it; see above');
  process.exit(1);
}
console.log('installed: darkroom serve --qwen PATH enhances prompts');

function builds() {
  if (machine === 'mac-arm64') return ['mac-arm64-metal'];
  const gpus = [...(values.cuda ? ['cuda', 'cuda-ext'] : []), ...(values.vulkan ? ['vulkan'] : [])];
  const found = values.cpu || gpus.length > 0 ? gpus : guessed();
  return [machine, ...found.map((gpu) => `${machine}-${gpu}`)];
}

function guessed() {
  if (process.arch !== 'x64' || process.platform === 'darwin') return [];
  if (spawnSync('nvidia-smi', ['-L']).status === 0) return ['cuda', 'cuda-ext'];
  return process.platform === 'win32' || existsSync('/dev/dri') ? ['vulkan'] : [];
}

function versionOf(name) {
  try {
    return JSON.parse(readFileSync(join(target, 'node_modules', name, 'package.json'), 'utf8')).version;
  } catch {
    return undefined;
  }
}
