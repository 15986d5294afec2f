import { execFile } from 'node:child_process';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { tempFolder } from '../support/temp-folder.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

describe('the package', () => {
  it('runs by npx in a folder that has nothing else', async () => {
    const folder = await tempFolder();
    const app = join(folder, 'app');
    await mkdir(app);
    // The build is there, and other tests run it: nothing may write it again.
    await run('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], { cwd: root });
    const [tarball = ''] = (await readdir(folder)).filter((name) => name.endsWith('.tgz'));
    const options = { cwd: app, env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' } };
    await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', join(folder, tarball)], options);

    const doctor = await run('npx', ['darkroom', 'doctor'], options);
    expect(doctor.stdout).toMatch(/^ok {2}cpu/m);
    expect(doctor.stdout.endsWith('\nnext: npx darkroom demo\n')).toBe(true);
    const model = join('node_modules', 'darkroom', 'assets', 'demo-sdxl');
    const inspected = await run('npx', ['darkroom', 'models', 'inspect', model], options);
    expect(inspected.stdout).toContain(`${model} is a whole SDXL checkpoint in diffusers' layout.`);
    expect(await readdir(join(app, 'node_modules', 'darkroom', 'dist'))).toEqual(['src']);
  });
});
