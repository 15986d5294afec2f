import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClient } from 'redis';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { parse } from 'yaml';
import { main } from '../support/command-line.js';
import { startReceiver } from '../support/receiver.js';
import { freePort, startRedis } from '../support/redis-server.js';
import { until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFile(join(root, path), 'utf8');

interface ComposeService {
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly stop_grace_period?: string;
}
const compose = parse(await read('deploy/compose.yaml'), { merge: true }) as {
  services: Readonly<Record<'server' | 'bridge', ComposeService>>;
};
/** Variables that the image sets. */
const imageVariables = Object.fromEntries(
  [...(/^ENV ((?:.|\\\n)*?)\n(?!\s)/m.exec(await read('deploy/Dockerfile'))?.[1]?.matchAll(/(\w+)=(\S+)/g) ?? [])].map(
    ([, name = '', value = '']) => [name, value],
  ),
);

describe('compose.yaml', () => {
  it('starts a server and a bridge that run a job, and are watched and stopped as it says', async () => {
    const [redis, receiver, folder] = [await startRedis(), await startReceiver(), await tempFolder()];
    const [port, metrics, bridgeMetrics] = [await freePort(), await freePort(), await freePort()];
    await mkdir(join(folder, 'files'));
    await symlink(inject('tinySdxl'), join(folder, 'model'));
    // What differs here: addresses and folders.
    const localized = (value: string) =>
      value
        .replace(/\$\{SDXL_FILE:\?[^}]*\}/, 'model')
        .replace(/\$\{CALLBACK_URL:-\}/, receiver.url)
        .replace(/\$\{CALLBACK_TOKEN:-\}/, '')
        .replace(/^\/models/, folder)
        .replace(/^\/(files|cache)/, `${folder}/$1`)
        .replace('redis://redis:6379', redis.url)
        .replace('server:50051', `127.0.0.1:${port}`)
        .replace(':50051', `:${port}`)
        .replace(':9464', `:${metrics}`)
        .replace(':9465', `:${bridgeMetrics}`);
    const start = (name: 'server' | 'bridge'): ChildProcess => {
      const { command = [], environment = {} } = compose.services[name];
      const variables = Object.entries({ ...imageVariables, ...environment, LOG_LEVEL: 'error', DEVICE: 'cpu' });
      const env = Object.fromEntries(variables.map(([variable, value]) => [variable, localized(value)]));
      const { PATH = '' } = process.env;
      const child = spawn(process.execPath, [main, ...command], { env: { PATH, ...env }, stdio: 'ignore' });
      onTestFinished(() => void child.kill('SIGKILL'));
      return child;
    };
    const programs = { server: start('server'), bridge: start('bridge') };
    onTestFinished(async () => {
      await receiver.stop();
      await redis.stop();
    });
    const isUp = (url: string) =>
      fetch(url).then(
        (response) => response.ok,
        () => false,
      );
    await until(() => isUp(`http://127.0.0.1:${metrics}/readyz`));
    await until(() => isUp(`http://127.0.0.1:${bridgeMetrics}/readyz`));
    const producer = createClient({ url: redis.url });
    await producer.connect();
    const job = { id: 'first', type: 'sdxl_image_fast', prompt: 'a red circle', user_id: 'me' };
    const config = { width: 64, height: 64, steps: 2 };
    await producer.lPush('sdxl_queue', JSON.stringify({ ...job, config }));
    producer.destroy();
    const ends = () => receiver.taken('first').filter(({ body }) => body.status !== 'processing');
    await until(() => ends().length > 0);
    expect(ends()[0]?.body).toMatchObject({ status: 'completed', error_message: null });
    expect(await readFile(join(folder, 'files', 'sdxl_image_fast', 'me', 'first', '0.png'))).not.toHaveLength(0);

    const page = await (await fetch(`http://127.0.0.1:${metrics}/metrics`)).text();
    expect(page).toMatch(/^darkroom_jobs_total\{.*outcome="completed".*\} 1$/m);
    for (const program of [programs.bridge, programs.server]) {
      program.kill('SIGTERM');
      expect(await once(program, 'exit')).toEqual([0, null]);
    }
  });

  it.each([
    ['server', 'DRAIN_TIMEOUT_MS'],
    ['bridge', 'BRIDGE_DRAIN_MS'],
  ] as const)('gives the %s longer to stop than %s', (name, variable) => {
    const { environment = {}, stop_grace_period: grace = '' } = compose.services[name];
    expect(Number(grace.replace(/s$/, '')) * 1000).toBeGreaterThan(Number(environment[variable]) + 15_000);
  });
});

describe('what watches darkroom', () => {
  const watchers = [
    'deploy/prometheus/alerts.yml',
    'deploy/grafana/dashboards/darkroom.json',
    'deploy/helm/darkroom/templates/keda.yaml',
  ];

  it.each(watchers)('asks for metrics that exist: %s', async (path) => {
    const known = new Set(
      [...(await read('docs/reference/metrics.md')).matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name),
    );
    const asked = [...(await read(path)).matchAll(/\b(?:darkroom|process|nodejs)_\w+/g)].map(([name]) => name);
    expect(asked.length).toBeGreaterThan(0);
    const unknown = asked.filter((name) => !known.has(name) && !known.has(name.replace(/_(bucket|sum|count)$/, '')));
    expect(unknown).toEqual([]);
  });

  it('has an entry in the runbook for every alert, and no other', async () => {
    const { groups } = parse(await read('deploy/prometheus/alerts.yml')) as {
      groups: readonly { rules: readonly { alert: string; annotations: { runbook_url: string } }[] }[];
    };
    const rules = groups.flatMap((group) => group.rules);
    const entries = [...(await read('docs/guide/runbook.md')).matchAll(/^## (\w+)$/gm)].map(([, name]) => name);
    expect(entries).toEqual(rules.map(({ alert }) => alert));
    for (const { alert, annotations } of rules) {
      expect(annotations.runbook_url).toBe(`docs/guide/runbook.md#${alert.toLowerCase()}`);
    }
  });
});
