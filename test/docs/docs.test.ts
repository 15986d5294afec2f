import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { bridgeConfigSchema } from '../../src/config/bridge-config.js';
import { configSchema } from '../../src/config/server-config.js';
import { webConfigSchema } from '../../src/config/web-config.js';
import { errorReasons } from '../../src/errors.js';
import { version } from '../../src/version.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFile(join(root, path), 'utf8');
const packageJson = JSON.parse(await read('package.json')) as {
  version: string;
  scripts: Record<string, string>;
  dependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
};

describe('the documentation', () => {
  it('has an entry for every error reason, with its status', async () => {
    const text = await read('docs/reference/errors.md');
    const entries = [...text.matchAll(/^## (\w+)\n\n`(\w+)`/gm)].map(([, reason, status]) => [reason, status]);
    expect(entries).toEqual(Object.entries(errorReasons).map(([reason, { status }]) => [reason, status]));
  });

  it('lists every variable with its default', async () => {
    const text = await read('docs/reference/config.md');
    const rows = [...text.matchAll(/^\| `(\w+)` +\| `?([^`|]+?)`? +\|/gm)].map(([, name, value]) => [name, value]);
    const defaults: Record<string, unknown> = {
      ...webConfigSchema.parse({}),
      ...bridgeConfigSchema.parse({}),
      ...configSchema.parse({}),
    };
    const schemas = [configSchema, bridgeConfigSchema, webConfigSchema];
    const names = new Set(schemas.flatMap(({ shape }) => Object.keys(shape)));
    expect(rows).toEqual([...names].map((name) => [name, String(defaults[name] ?? 'unset')]));
  });

  it('describes every variable as the code does', async () => {
    const text = await read('docs/reference/config.md');
    const schemas: Readonly<Record<string, z.ZodType>> = {
      ...webConfigSchema.shape,
      ...bridgeConfigSchema.shape,
      ...configSchema.shape,
    };
    for (const [, name = '', described = ''] of text.matchAll(/^\| `(\w+)` +\| .+? +\| (.*?) +\|$/gm)) {
      // The page adds bounds and links.
      const { description = '' } = schemas[name] ?? {};
      const [first = ''] = description.split('. ');
      expect([name, described.replaceAll('`', '')]).toEqual([name, expect.stringContaining(first)]);
    }
  });

  it('has a line for every dependency that runs in production', async () => {
    const text = await read('docs/reference/dependencies.md');
    const names = [...text.matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name);
    expect(names).toEqual([...Object.keys(packageJson.dependencies), ...Object.keys(packageJson.optionalDependencies)]);
  });

  it('links to files that exist', async () => {
    const pages = [
      'README.md',
      ...(await readdir(join(root, 'docs'), { recursive: true }))
        .filter((name) => name.endsWith('.md'))
        .map((name) => `docs/${name}`),
    ];
    for (const page of pages) {
      for (const [, target = ''] of (await read(page)).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)) {
        await expect(stat(join(root, dirname(page), target)), `${page} links to ${target}`).resolves.toBeDefined();
      }
    }
  });

  it('names npm scripts that exist', async () => {
    const pages = [
      'README.md',
      'docs/guide/bridge.md',
      'docs/guide/sdxl.md',
      'docs/guide/cuda.md',
      'docs/guide/conformance.md',
      'docs/guide/developing.md',
      'docs/reference/performance.md',
    ];
    for (const page of pages) {
      for (const [, script = ''] of (await read(page)).matchAll(/npm run (?:-s )?([\w:]+)/g))
        expect(packageJson.scripts, page).toHaveProperty([script]);
    }
  });

  it('has the test command that CI runs, word for word', async () => {
    const command = /^apt-get install .*&& npm ci && npm test$/m;
    const [wanted] = command.exec(await read('README.md')) ?? [];
    expect(wanted).toBeDefined();
    expect((await read('.ci/run')).split('\n')).toContain(wanted);
  });
});

describe('the version', () => {
  it('is the one of package.json', () => {
    expect(version).toBe(packageJson.version);
  });
});
