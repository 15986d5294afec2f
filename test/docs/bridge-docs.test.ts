import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { bridgeConfigSchema } from '../../src/config/bridge-config.js';
import { clientVariables } from '../../src/config/client-config.js';
import { sharedVariables } from '../../src/config/shared-variables.js';
import { JobMetadata } from '../../src/gen/darkroom/v1/job.js';
import { contractJobTypes } from '../../src/job-types.js';
import { callbackMetadata, generatedMetadata } from '../../src/queue-bridge/callback/callback-metadata.js';
import { readPayload } from '../../src/queue-bridge/payload/payload.js';
import { journalFields } from '../../src/queue-bridge/queue/journal-fields.js';
import { webhookHeaders } from '../../src/std/standard-webhooks.js';
import { tempFolder } from '../support/temp-folder.js';

const read = (path: string) => readFile(fileURLToPath(new URL(`../../docs/${path}`, import.meta.url)), 'utf8');

describe('the pages of the bridge', () => {
  it('verify callbacks as they are signed, and reject changed and old ones', async () => {
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

  it('describe every variable as the program does', async () => {
    const text = await read('reference/config.md');
    for (const [name, { description = '' }] of Object.entries(bridgeConfigSchema.shape)) {
      if (name in clientVariables || name in sharedVariables) continue;
      const [, shown = ''] = new RegExp(`^\\| \`${name}\` +\\| [^|]+ \\| (.+?) +\\|$`, 'm').exec(text) ?? [];
      // What follows are the bounds.
      expect(shown.slice(0, description.length), name).toBe(description);
    }
  });

  it('list every field of the journal, with its writers and its meaning', async () => {
    const [, section = ''] = /\n## Journal\n(.*?)\n## /s.exec(await read('reference/bridge.md')) ?? [];
    const rows = [...section.matchAll(/^\| `([^`]+)` +\| (.+?) +\| (.+?) +\|$/gm)].map((row) => row.slice(1, 4));
    const wanted = Object.entries(journalFields).map(([field, { writers, meaning }]) => [
      field,
      writers.join(', '),
      meaning.replace(/\.$/, ''),
    ]);
    expect(rows).toEqual(wanted);
  });

  it('list every field of the metadata', async () => {
    const text = await read('reference/bridge.md');
    const payload = '{"id":"a","type":"video_fast","prompt":"","user_id":"u"}';
    const job = readPayload(payload, { jobTypes: contractJobTypes });
    if (job.kind !== 'job') throw new Error(job.problem);
    const metadata = callbackMetadata(generatedMetadata(job, JobMetadata.fromPartial({})), []);
    for (const field of Object.keys(metadata)) expect(text).toContain(`\`${field}\``);
  });
});
