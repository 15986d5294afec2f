import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import { createServer } from '../../src/server/server.js';
import { darkroom } from '../support/command-line.js';
import { silent, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

it('adds, lists and revokes tokens that a server takes', async () => {
  const file = join(await tempFolder(), 'tokens.json');
  const tokens = (...args: string[]) => darkroom(['tokens', ...args], { env: { TOKENS_FILE: file } });
  const added = await tokens('add', 'app', '--scopes', 'read', '--expires', '90d', '--jobs', '4');
  expect(added.code, added.stderr).toBe(0);
  const token = added.stdout.trim();
  expect(token).toMatch(/^dkr_[\w-]{43}$/);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const listed = await tokens('list');
  expect(listed.stdout).toMatch(/^[0-9a-f]{8} {2}app +read {2}valid until 20\d\d-.+ {2}jobs 4\n$/);
  expect(listed.stdout).not.toContain(token);

  const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0', TOKENS_FILE: file });
  const server = await createServer({ config, log: silent, engines: [] });
  const status = (env: Record<string, string>) => darkroom(['status', '--server', `127.0.0.1:${server.port}`], { env });
  expect((await status({ DARKROOM_TOKEN: token })).stdout).toMatch(
    /^darkroom .+, up .+\n0 jobs running, 0 waiting, at most 64\n$/,
  );
  expect((await status({})).stderr).toMatch(/authorization: Bearer/);
  expect((await tokens('revoke', 'app')).stdout).toMatch(/app was revoked/);
  await until(async () => (await status({ DARKROOM_TOKEN: token })).stderr.includes('"app" was revoked'));
  await server.close();
});

it.each([
  [['add', 'a b'], /name: must be 1 to 64 letters/],
  [['add', 'app', '--scopes', 'write'], /"write" is none of generate, read, admin/],
  [['add', 'app', '--expires', 'soon'], /must be like 90d/],
  [['add', 'app', '--expires', '2020-01-01T00:00:00Z'], /must be in the future/],
  [['revoke', 'nobody'], /no token has the name or id "nobody"/],
  [['list'], /TOKENS_FILE .* does not exist/],
])('says what is wrong with %o', async (args, message) => {
  const file = join(await tempFolder(), 'tokens.json');
  const { code, stderr } = await darkroom(['tokens', ...args], { env: { TOKENS_FILE: file } });
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});
