import { execFile } from 'node:child_process';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { tempFolder } from '../support/temp-folder.js';

const probe = fileURLToPath(new URL('../../dist/src/runtime/probe-process.js', import.meta.url));

it.each(['native', 'binding'])('the %s runtime notes down nothing that it could send to its maker', async (runtime) => {
  const folder = await tempFolder();
  const [home, temporary] = [join(folder, 'home'), join(folder, 'temporary')];
  await Promise.all([home, temporary].map((path) => mkdir(path)));
  const { ORT_DISABLE_TELEMETRY: _, ...env } = process.env;
  const options = { env: { ...env, HOME: home, TMPDIR: temporary } };
  await promisify(execFile)(process.execPath, [probe, 'cpu', runtime, '', '0'], options);
  expect([await readdir(home), await readdir(temporary)]).toEqual([[], []]);
});
