import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { readBridgeConfig } from '../../src/config/bridge-config.js';
import { openSpool } from '../../src/queue-bridge/open-spool.js';
import { openQueue } from '../../src/queue-bridge/queue/open-queue.js';
import { openStore } from '../../src/storage/open-store.js';
import { tempFolder } from '../support/temp-folder.js';

const supabase = { SUPABASE_URL: 'https://abc.supabase.co/', SUPABASE_SERVICE_KEY: 'service-key' };

describe("a deployment's variables", () => {
  it.each([
    ['nothing', {}, 'memory'],
    ['REDIS_URL', { REDIS_URL: 'redis://127.0.0.1:1' }, 'redis'],
    ['Upstash', { UPSTASH_REDIS_REST_URL: 'https://x.upstash.io', UPSTASH_REDIS_REST_TOKEN: 't' }, 'upstash'],
    [
      'both',
      {
        REDIS_URL: 'redis://127.0.0.1:1',
        UPSTASH_REDIS_REST_URL: 'https://x.upstash.io',
        UPSTASH_REDIS_REST_TOKEN: 't',
      },
      'redis',
    ],
  ])('choose the queue: %s', async (_, variables, kind) => {
    const queue = openQueue(readBridgeConfig(variables));
    expect(queue.kind).toBe(kind);
    await queue.close();
  });

  it.each([
    ['nothing', {}, 'local'],
    ['Supabase', supabase, 'supabase'],
    ['S3', { S3_BUCKET: 'assets' }, 's3'],
    ['Supabase, but STORAGE is local', { ...supabase, STORAGE: 'local' }, 'local'],
  ])('choose the storage: %s', async (_, variables, kind) => {
    expect((await openStore(readBridgeConfig(variables))).kind).toBe(kind);
  });

  it('fail with the name of a missing one', async () => {
    const store = openStore(readBridgeConfig({ STORAGE: 'supabase' }));
    await expect(store).rejects.toThrow('SUPABASE_URL must be set for STORAGE=supabase');
    const config = readBridgeConfig({ UPSTASH_REDIS_REST_URL: 'https://x.upstash.io' });
    expect(() => openQueue(config)).toThrow(/^UPSTASH_REDIS_REST_TOKEN must be set/);
  });

  it('give the two lanes of the contract by default', () => {
    expect(readBridgeConfig({}).lanes).toEqual([
      { name: 'sdxl', queue: 'sdxl_queue', slots: 3, weight: 3 },
      { name: 'wan', queue: 'wan_queue', slots: 3, weight: 1 },
    ]);
    const set = { BRIDGE_SDXL_QUEUE: 'q', BRIDGE_SDXL_SLOTS: '0', BRIDGE_SDXL_WEIGHT: '5', BRIDGE_WAN_SLOTS: '7' };
    expect(readBridgeConfig(set).lanes).toEqual([
      { name: 'sdxl', queue: 'q', slots: 0, weight: 5 },
      { name: 'wan', queue: 'wan_queue', slots: 7, weight: 1 },
    ]);
  });

  it('add a lane by naming it', () => {
    const variables = { BRIDGE_LANES: 'sdxl, paint-2 ,wan', BRIDGE_PAINT_2_SLOTS: '9', BRIDGE_PAINT_2_WEIGHT: '2' };
    expect(readBridgeConfig(variables).lanes).toEqual([
      { name: 'sdxl', queue: 'sdxl_queue', slots: 3, weight: 3 },
      { name: 'paint-2', queue: 'paint-2_queue', slots: 9, weight: 2 },
      { name: 'wan', queue: 'wan_queue', slots: 3, weight: 1 },
    ]);
  });

  it.each([
    ['Paint', 'must be lower-case names'],
    ['a:b', 'must be lower-case names'],
    [',', 'must be 1 to 16 names'],
    [Array.from({ length: 17 }, (_, i) => `l${i}`).join(), 'must be 1 to 16 names'],
    ['paint-2,paint_2', 'must name each lane once'],
  ])('cannot name the lanes %s', (BRIDGE_LANES, problem) => {
    const read = () => readBridgeConfig({ BRIDGE_LANES, BRIDGE_SLOTS: '0' });
    expect(read).toThrow(`BRIDGE_LANES "${BRIDGE_LANES}": ${problem}`);
    expect(read).toThrow('BRIDGE_SLOTS "0"');
  });

  it('report bad variables of a lane that they name', () => {
    const variables = { BRIDGE_LANES: 'paint', BRIDGE_PAINT_WEIGHT: '0', BRIDGE_SDXL_WEIGHT: '0' };
    expect(() => readBridgeConfig(variables)).toThrow(/BRIDGE_PAINT_WEIGHT "0": [^\n]*$/);
  });

  it('send callbacks to Supabase with its key, unless they name another receiver: it gets no key', () => {
    expect(readBridgeConfig(supabase)).toMatchObject({
      CALLBACK_URL: 'https://abc.supabase.co/functions/v1/job-callback',
      CALLBACK_TOKEN: 'service-key',
    });
    const other = readBridgeConfig({ ...supabase, CALLBACK_URL: 'https://example.com/hook' });
    expect([other.CALLBACK_URL, other.CALLBACK_TOKEN]).toEqual(['https://example.com/hook', undefined]);
  });

  it('name S3 without its SDK: the error says how to install it', async () => {
    // The build without its packages.
    const folder = await tempFolder();
    const dist = fileURLToPath(new URL('../../dist/src', import.meta.url));
    await writeFile(join(folder, 'package.json'), '{"type": "module"}');
    for (const part of ['errors.js', 'std', 'storage']) {
      await cp(join(dist, part), join(folder, 'src', part), { recursive: true });
    }
    const program = `
      const { S3Store } = await import(${JSON.stringify(pathToFileURL(join(folder, 'src/storage/s3-store.js')).href)});
      await S3Store.create({ bucket: 'b', region: 'r', timeoutMs: 1 }).catch(({ message }) => console.log(message));`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program]);
    expect(stdout).toBe(
      'S3 needs the package @aws-sdk/client-s3, which is not installed. Run: npm install @aws-sdk/client-s3\n',
    );
  });
});

describe('a spool', () => {
  it('removes the folders of bridges that were killed long ago', async () => {
    const parent = await tempFolder();
    // No process has such a large id.
    for (const name of ['darkroom-spool-999999999-old', 'darkroom-spool-999999999-new', 'other']) {
      await mkdir(join(parent, name));
    }
    await utimes(join(parent, 'darkroom-spool-999999999-old'), 1, 1);
    const own = await openSpool(parent);
    expect((await readdir(parent)).sort()).toEqual(
      ['darkroom-spool-999999999-new', own.slice(parent.length + 1), 'other'].sort(),
    );
  });
});
