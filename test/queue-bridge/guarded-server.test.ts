import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { addToken } from '../../src/server/access/token-file.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { serve } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

const pem = (name: string) => fileURLToPath(new URL(`../fixtures/tls/access/${name}.pem`, import.meta.url));

it('runs jobs on a server with mutual TLS and tokens, and waits at a limit without spending an attempt', async () => {
  const TOKENS_FILE = join(await tempFolder(), 'tokens.json');
  const token = await addToken(TOKENS_FILE, { name: 'bridge', scopes: ['generate', 'read'], limits: { jobs: 1 } });
  const serving = await serve({
    TLS_CERT: pem('server'),
    TLS_KEY: pem('server-key'),
    TLS_CLIENT_CA: pem('authority'),
    TOKENS_FILE,
  });
  try {
    const variables = {
      DARKROOM_CA: pem('authority'),
      DARKROOM_CERT: pem('client'),
      DARKROOM_KEY: pem('client-key'),
      DARKROOM_TOKEN: token,
      BRIDGE_ATTEMPTS: '1',
    };
    const { push, ended, start } = await bridging(`127.0.0.1:${serving.server.port}`, { variables });
    const ids = ['one', 'two', 'three', 'four'];
    for (const id of ids) await push(quickPayload(id));
    const bridge = await start();
    const bodies = await Promise.all(ids.map(ended));
    expect(bodies.map(({ status, error_message }) => error_message ?? status)).toEqual(ids.map(() => 'completed'));
    await bridge.stop();
  } finally {
    await serving.stop();
  }
});
