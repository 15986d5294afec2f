// Fetches ONNX Runtime's CUDA libraries, which npm does not carry, and checks that a CUDA session opens.
//   npm run setup:cuda                          from NuGet, by onnxruntime-node's own script
//   npm run setup:cuda -- --from <folder>       from a folder that holds the three .so files (at any depth)
//   npm run setup:cuda -- --from <file>         from Microsoft.ML.OnnxRuntime.Gpu.Linux (.nupkg, NuGet) or onnxruntime-gpu (.whl, PyPI), as
//                                               downloaded elsewhere
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  createReadStream,
  createWriteStream,
  existsSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { createInflateRaw } from 'node:zlib';

const LIBRARIES = ['cuda', 'shared', 'tensorrt'].map((name) => `libonnxruntime_providers_${name}.so`);
const root = join(import.meta.dirname, '..');
const { values } = parseArgs({
  options: { from: { type: 'string' }, into: { type: 'string' }, 'no-session': { type: 'boolean' } },
});
const runtime = join(root, 'node_modules/onnxruntime-node');
const target = values.into ?? join(runtime, 'bin/napi-v6/linux/x64');

class SetupError extends Error {}

try {
  if (values.into === undefined && (process.platform !== 'linux' || process.arch !== 'x64')) {
    throw new SetupError(
      `CUDA is available on linux/x64 only, this is ${process.platform}/${process.arch}; use DEVICE=webgpu`,
    );
  }
  if (values.from === undefined) download();
  else if (!existsSync(values.from)) throw new SetupError(`${values.from} does not exist`);
  else if (statSync(values.from).isDirectory()) copyFromFolder(values.from);
  else await copyFromZip(values.from);

  const missing = LIBRARIES.filter((name) => !existsSync(join(target, name)));
  if (missing.length > 0) throw new SetupError(`${target} still lacks ${missing.join(', ')}`);
  console.log(`libraries in place: ${LIBRARIES.join(', ')}`);
  reportNeeds();
  if (!values['no-session']) await openSession();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`setup:cuda: ${error.message}`);
  process.exitCode = 1;
}

function download() {
  // The environment variable is what the vendor's script obeys whichever npm runs this.
  const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'true' };
  const { status } = spawnSync(process.execPath, [join(runtime, 'script/install.js')], {
    env,
    stdio: 'inherit',
    cwd: runtime,
  });
  if (status === 0) return;
  throw new SetupError(
    'the download failed; without access to NuGet, fetch Microsoft.ML.OnnxRuntime.Gpu.Linux, or onnxruntime-gpu from PyPI, elsewhere and use --from <file>',
  );
}

function copyFromFolder(folder) {
  const files = readdirSync(folder, { recursive: true }).map((name) => join(folder, String(name)));
  const found = LIBRARIES.map((name) => [name, files.find((file) => basename(file) === name)]);
  const missing = found.filter(([, file]) => file === undefined).map(([name]) => name);
  if (missing.length > 0) throw new SetupError(`${folder} has no ${missing.join(', ')}`);
  for (const [name, file] of found) copyFileSync(file, join(target, name));
}

// Packages of NuGet and PyPI are zip archives. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3
async function copyFromZip(path) {
  const file = openSync(path, 'r');
  const { size } = statSync(path);
  const read = (offset, length) => {
    const buffer = Buffer.alloc(Math.max(0, Math.min(length, size - offset)));
    readSync(file, buffer, 0, buffer.length, offset);
    return buffer;
  };
  const tailOffset = Math.max(0, size - 65_557);
  const tail = read(tailOffset, 65_557);
  const end = tail.lastIndexOf(Buffer.from('PK\x05\x06'));
  if (end < 0) throw new SetupError(`${path} is not a zip archive; a .nupkg and a .whl are`);
  const directory = read(tail.readUInt32LE(end + 16), tail.readUInt32LE(end + 12));
  const entries = new Map();
  for (let at = 0; at + 46 <= directory.length; ) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => directory.readUInt16LE(at + field));
    const name = directory.toString('utf8', at + 46, at + 46 + nameLength);
    entries.set(basename(name), {
      method: directory.readUInt16LE(at + 10),
      bytes: directory.readUInt32LE(at + 20),
      offset: directory.readUInt32LE(at + 42),
    });
    at += 46 + nameLength + extraLength + commentLength;
  }
  const missing = LIBRARIES.filter((name) => !entries.has(name));
  if (missing.length > 0) throw new SetupError(`${path} has no ${missing.join(', ')}`);
  for (const name of LIBRARIES) {
    const { method, bytes, offset } = entries.get(name);
    const local = read(offset, 30);
    const start = offset + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
    const out = createWriteStream(join(target, name));
    if (bytes === 0) out.end();
    else {
      const source = createReadStream(path, { start, end: start + bytes - 1 });
      await (method === 8 ? pipeline(source, createInflateRaw(), out) : pipeline(source, out));
    }
  }
}

/** Reads from the library itself what it was built for: what its package is called has changed with less than that. */
function neededLibraries() {
  const { status, stdout } = spawnSync('ldd', [join(target, LIBRARIES[0])], { encoding: 'utf8' });
  if (status !== 0) return [];
  return stdout.split('\n').flatMap((line) => {
    const [, name, found] = /^\s*(\S+) => (not found|\/\S+)/.exec(line) ?? [];
    return name === undefined ? [] : [{ name, isFound: found !== 'not found' }];
  });
}

function reportNeeds() {
  const needed = neededLibraries();
  const major = (stem) =>
    needed.map(({ name }) => new RegExp(`^lib${stem}\\.so\\.(\\d+)`).exec(name)?.[1]).find(Boolean);
  // cuBLAS has the number of its CUDA; cuFFT and cuRAND have their own.
  const built = [
    ['CUDA', major('cudart') ?? major('cublas(?:Lt)?')],
    ['cuDNN', major('cudnn')],
  ].flatMap(([what, number]) => (number ? [`${what} ${number}`] : []));
  if (built.length > 0) console.log(`built for ${built.join(' and ')}`);
  const missing = needed.filter(({ isFound }) => !isFound).map(({ name }) => name);
  if (missing.length > 0) {
    throw new SetupError(
      `not on the library path: ${missing.join(', ')}; install ${built.join(' and ') || 'the packages that have them'}, or add the folder to LD_LIBRARY_PATH`,
    );
  }
}

async function openSession() {
  const { probeProvider } = await import(join(root, 'dist/src/runtime/probe.js'));
  const { opens, detail } = await probeProvider('cuda');
  if (!opens) throw new SetupError(`the libraries are there, but a CUDA session does not open: ${detail}`);
  console.log('a CUDA session opens: DEVICE=cuda works');
}
