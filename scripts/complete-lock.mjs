// Completes package-lock.json in two ways. --check: fails when the lock is not complete.
// 1. Platform packages that a registry may not list (macOS, Windows, musl builds of biome and buf): npm leaves them out, and
//    `npm ci` under npm 11 and 12 then refuses the lock everywhere. Each follows from its parent's optionalDependencies.
// 2. Install scripts that `allowScripts` in package.json denies. npm 10 does not know `allowScripts` and runs every script that
//    the lock announces; onnxruntime-node's would download CUDA's libraries. So the lock announces only those allowed.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const path = join(import.meta.dirname, '..', 'package-lock.json');
const lock = JSON.parse(readFileSync(path, 'utf8'));
const packages = lock.packages;
const { allowScripts } = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'));

const OS = {
  darwin: 'darwin',
  linux: 'linux',
  win32: 'win32',
  windows: 'win32',
  android: 'android',
  freebsd: 'freebsd',
};
const CPU = { x64: 'x64', arm64: 'arm64', aarch64: 'arm64', ia32: 'ia32', armv7: 'arm' };

/** os, cpu and libc, as far as a platform package's name tells. */
function platformOf(name) {
  const words = name.split(/[/_-]/);
  const os = words.map((word) => OS[word]).find(Boolean);
  const cpu = words.map((word) => CPU[word]).find(Boolean);
  const libc = words.includes('musl') ? ['musl'] : [];
  return { ...(cpu && { cpu: [cpu] }), ...(libc.length > 0 && { libc }), ...(os && { os: [os] }) };
}

const missing = {};
for (const [place, parent] of Object.entries(packages)) {
  if (place === '') continue; // our own optional packages may be dropped as a whole
  for (const [name, range] of Object.entries(parent.optionalDependencies ?? {})) {
    const candidates = [`${place}/node_modules/${name}`, `node_modules/${name}`];
    if (candidates.some((candidate) => packages[candidate])) continue;
    const version = range.replace(/^[~^]/, '');
    missing[`node_modules/${name}`] = {
      version,
      ...platformOf(name),
      ...(parent.dev && { dev: true }),
      optional: true,
    };
  }
}

const nameOf = (place) => place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length);
const denied = Object.keys(packages).filter(
  (place) => packages[place].hasInstallScript && allowScripts[nameOf(place)] === false,
);

const names = Object.keys(missing);
if (process.argv.includes('--check')) {
  if (names.length > 0) console.error(`package-lock.json lacks ${names.join(', ')}`);
  if (denied.length > 0) console.error(`package-lock.json announces denied scripts of ${denied.join(', ')}`);
  if (names.length + denied.length > 0) {
    console.error('Run: node scripts/complete-lock.mjs');
    process.exitCode = 1;
  }
} else {
  for (const place of denied) delete packages[place].hasInstallScript;
  const [root, ...rest] = Object.entries({ ...packages, ...missing }).sort(([a], [b]) => a.localeCompare(b, 'en'));
  lock.packages = Object.fromEntries([root, ...rest]);
  writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
  const changes = [...names.map((name) => `added ${name}`), ...denied.map((place) => `denied the script of ${place}`)];
  console.log(changes.join('\n') || 'package-lock.json is complete');
}
