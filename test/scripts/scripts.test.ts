import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { tempFolder } from '../support/temp-folder.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const LIBRARIES = ['cuda', 'shared', 'tensorrt'].map((name) => `libonnxruntime_providers_${name}.so`);

function run(script: string, ...args: string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(root, 'scripts', script), ...args], { cwd: root }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : 1, output: stdout + stderr });
    });
  });
}

/** A zip archive: local headers and data, then the directory. */
function zipOf(files: Readonly<Record<string, Buffer>>): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of Object.entries(files)) {
    const data = deflateRawSync(content);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(typeof crc32 === 'function' ? crc32(content) : 0, 10);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(Buffer.byteLength(name), 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, Buffer.from(name), data]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.concat([Buffer.from('PK\x01\x02'), Buffer.from([20, 0]), common, tail, Buffer.from(name)]));
    parts.push(local);
    offset += local.length;
  }
  const entries = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(directory.length, 4);
  end.writeUInt16LE(directory.length, 6);
  end.writeUInt32LE(entries.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...parts, entries, Buffer.from('PK\x05\x06'), end]);
}

describe('setup-cuda.mjs --from', () => {
  const content = (name: string) => Buffer.from(`${name} `.repeat(1000));

  it.each([
    ['gpu.nupkg', 'runtimes/linux-x64/native'],
    ['gpu.whl', 'onnxruntime/capi'],
  ])('takes the libraries out of a package: %s', async (file, inside) => {
    const [folder, into] = [await tempFolder(), await tempFolder()];
    const path = join(folder, file);
    await writeFile(
      path,
      zipOf(Object.fromEntries(['README.md', ...LIBRARIES].map((name) => [`${inside}/${name}`, content(name)]))),
    );
    const { code, output } = await run('setup-cuda.mjs', '--from', path, '--into', into, '--no-session');
    expect([code, output]).toEqual([0, `libraries in place: ${LIBRARIES.join(', ')}\n`]);
    for (const name of LIBRARIES) expect(await readFile(join(into, name))).toEqual(content(name));
  });

  it('takes them from a folder, at any depth', async () => {
    const [folder, into] = [await tempFolder(), await tempFolder()];
    await mkdir(join(folder, 'a', 'b'), { recursive: true });
    for (const name of LIBRARIES) await writeFile(join(folder, 'a', 'b', name), content(name));
    expect((await run('setup-cuda.mjs', '--from', folder, '--into', into, '--no-session')).code).toBe(0);
    expect(await readFile(join(into, LIBRARIES[0] ?? ''))).toEqual(content(LIBRARIES[0] ?? ''));
  });

  it('names the CUDA that the library was built for, and what is not on the library path', async () => {
    const [folder, into] = [await tempFolder(), await tempFolder()];
    // A real library whose needs are renamed to some that no machine of the tests has; the names are equally long.
    const library = await readFile(
      join(root, 'node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1'),
    );
    for (const [from, to] of [
      ['libpthread.so.0', 'libcublas.so.99'],
      ['libgcc_s.so.1', 'libcudnn.so.9'],
    ] as const) {
      const at = library.indexOf(`\0${from}\0`);
      expect(at).toBeGreaterThan(0);
      library.write(to, at + 1, 'latin1');
    }
    for (const name of LIBRARIES) await writeFile(join(folder, name), library);
    const { code, output } = await run('setup-cuda.mjs', '--from', folder, '--into', into, '--no-session');
    expect(code).toBe(1);
    expect(output).toContain('built for CUDA 99 and cuDNN 9\n');
    expect(output).toContain(
      'not on the library path: libcublas.so.99, libcudnn.so.9; install CUDA 99 and cuDNN 9, or',
    );
  });

  it.each([
    [
      'a folder without them',
      async () => tempFolder(),
      /has no libonnxruntime_providers_cuda.so, libonnxruntime_providers_shared.so/,
    ],
    [
      'a file that is no archive',
      async () => join(root, 'package.json'),
      /package.json is not a zip archive; a .nupkg and a .whl are/,
    ],
    ['a path that is not there', async () => '/nowhere', /\/nowhere does not exist/],
  ])('refuses %s in one sentence', async (_, from, message) => {
    const { code, output } = await run(
      'setup-cuda.mjs',
      '--from',
      await from(),
      '--into',
      await tempFolder(),
      '--no-session',
    );
    expect([code, output]).toEqual([1, expect.stringMatching(message)]);
    expect(output.trim().split('\n')).toHaveLength(1);
  });
});

describe('what is generated', () => {
  it.each([
    ['the lock is complete for every platform', 'complete-lock.mjs'],
    ['src/gen is what proto/ gives', 'generate-proto.mjs'],
  ])('%s', async (_, script) => {
    expect(await run(script, '--check')).toMatchObject({ code: 0 });
  });

  it('the API breaks nobody who uses the released one', async () => {
    expect(await run('proto-breaking.mjs')).toMatchObject({ code: 0 });
  });
});

describe('check-structure', () => {
  it('finds nothing in src', async () => {
    expect(await run('check-structure.mjs')).toMatchObject({ code: 0 });
  });

  it.each([
    [
      'an import that goes up',
      { 'std/a.ts': "import { b } from '../server/b.js';", 'server/b.ts': '' },
      'std/a.ts imports server/b.ts, which is above it',
    ],
    [
      'an import from beside',
      { 'server/a.ts': "import { b } from '../queue-bridge/b.js';", 'queue-bridge/b.ts': '' },
      'server/a.ts imports queue-bridge/b.ts, which is beside it',
    ],
    [
      'a circle of types',
      { 'server/a.ts': "import type { B } from './b.js';", 'server/b.ts': "import type { A } from './a.js';" },
      'a circle of imports: server/a.ts, server/b.ts',
    ],
    [
      'a branch on a family',
      { 'server/a.ts': "if (family === 'wan') run();" },
      "server/a.ts:1 branches on a family's name: if (family === 'wan') run();",
    ],
    [
      'a second reader of the environment',
      { 'engine/a.ts': 'const home = process.env.HOME;' },
      'engine/a.ts reads process.env; take it from environment.ts',
    ],
    ['a file in no room', { 'attic/a.ts': '' }, 'attic/a.ts: belongs to no room; add it to LEVELS'],
    [
      'a bridge that loads pipelines',
      { 'cli/bridge.ts': "import { a } from '../pipelines/a.js';", 'pipelines/a.ts': '' },
      'cli/bridge.ts -> pipelines/a.ts: the bridge knows only the API',
    ],
  ])('reports %s', async (_, files, fault) => {
    const src = await tempFolder();
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(join(src, name)), { recursive: true });
      await writeFile(join(src, name), text);
    }
    expect(await run('check-structure.mjs', src)).toEqual({ code: 1, output: `${fault}\n` });
  });
});
