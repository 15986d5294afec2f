import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { JobMetadata } from '../../src/gen/darkroom/v1/job.js';
import { completedMetadata, renderedMetadata } from '../../src/queue-bridge/callback/callback-metadata.js';
import { webhookHeaders } from '../../src/std/standard-webhooks.js';
import { tempFolder } from '../support/temp-folder.js';

const read = (path: string) => readFile(fileURLToPath(new URL(`../../docs/${path}`, import.meta.url)), 'utf8');

describe('the pages of the bridge', () => {
  it('verify callbacks as they are signed, and refuse those that were changed or are old', async () => {
    const code = /```js\n(import .*?)```/s.exec(await read('guide/bridge.md'))?.[1] ?? '';
    const path = join(await tempFolder(), 'verify.mjs');
    await writeFile(path, code);
    const { verify } = (await import(pathToFileURL(path).href)) as {
      verify(secret: string, headers: object, body: string): boolean;
    };
    const secret = `whsec_${Buffer.alloc(24, 3).toString('base64')}`;
    const body = '{"job_id":"ä"}';
    const now = Math.floor(Date.now() / 1000);
    const signed = webhookHeaders({ id: 'a:1:terminal', timestamp: now, body }, secret);
    const old = webhookHeaders({ id: 'a:1:terminal', timestamp: now - 1000, body }, secret);
    expect([
      verify(secret, signed, body),
      verify(secret, { ...signed, 'webhook-id': 'b:1:terminal' }, body),
      verify(secret, signed, `${body} `),
      verify(secret, old, body),
      verify(secret, { ...signed, 'webhook-signature': '' }, body),
    ]).toEqual([true, false, false, false, false]);
  });

  it('list every field of the metadata', async () => {
    const text = await read('reference/bridge.md');
    const payload = { id: 'a', type: 'video_fast', prompt: '', user_id: 'u' } as Parameters<typeof renderedMetadata>[0];
    const metadata = completedMetadata(renderedMetadata(payload, JobMetadata.fromPartial({})), []);
    for (const field of Object.keys(metadata)) expect(text).toContain(`\`${field}\``);
  });
});
