import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { darkroom, main } from '../support/command-line.js';
import { ask } from '../support/gateway.js';
import { serve, until } from '../support/serving.js';

/** Starts a command that serves the page. @returns its URL, and its end */
async function startPage(args: readonly string[], env: Record<string, string> = {}) {
  const variables = { ...process.env, LOG_LEVEL: 'silent', METRICS_LISTEN: 'off', ...env };
  const child = spawn(process.execPath, [main, ...args], { env: variables, stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const ended = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout })) {
    const [, url] = /^the page is at (\S+)$/.exec(line) ?? [];
    if (url === undefined) continue;
    child.stdout.resume();
    return { url, stop: () => child.kill('SIGTERM'), ended };
  }
  throw new Error('it ended before it served the page');
}

describe('darkroom web', () => {
  it("serves the page for a server, and OpenAI's API if asked, until SIGTERM", async () => {
    const serving = await serve({}, { startsLater: true });
    onTestFinished(() => serving.stop());
    const args = ['web', '--server', `127.0.0.1:${serving.server.port}`, '--listen', '127.0.0.1:0', '--openai'];
    const { url, stop, ended } = await startPage(args);
    const page = await fetch(url);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    const [, script = ''] = /src="\.?([^"]+\.js)"/.exec(await page.text()) ?? [];
    expect((await fetch(`${url}${script}`)).headers.get('cache-control')).toContain('immutable');
    expect((await ask(`${url}/v1/models`)).status).toBe(200);
    stop();
    expect(await ended).toEqual([0, null]);
  });

  it('says in a sentence that its address is taken', async () => {
    const { url } = await startPage(['web', '--server', '127.0.0.1:1', '--listen', '127.0.0.1:0']);
    const taken = url.replace('http://', '');
    const { code, stderr } = await darkroom(['web', '--server', '127.0.0.1:1', '--listen', taken]);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(`^darkroom: WEB_LISTEN ${taken} cannot be bound: .*in use`),
    ]);
  });
});

describe('darkroom serve --web', () => {
  it('asks for a token where the server has tokens, and ends with the server', async () => {
    const args = ['serve', '--sdxl', inject('tinySdxl'), '--device', 'cpu', '--listen', '127.0.0.1:0'];
    const { url, stop, ended } = await startPage([...args, '--web', '127.0.0.1:0'], { AUTH_TOKEN: 'the-token-of-all' });
    expect((await ask(`${url}/api/status`)).status).toBe(401);
    const authorization = 'Bearer the-token-of-all';
    await until(async () => (await ask(`${url}/api/status`, undefined, { authorization })).status === 200);
    stop();
    expect(await ended).toEqual([0, null]);
  });
});
