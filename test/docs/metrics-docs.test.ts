import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { type MetricDescription, MetricsRegistry } from '../../src/observe/metrics-registry.js';
import { BridgeMetrics } from '../../src/queue-bridge/observe/bridge-metrics.js';
import { ServerMetrics } from '../../src/server/observe/server-metrics.js';
import { TraceIds } from '../../src/server/observe/trace-ids.js';

const page = await readFile(new URL('../../docs/reference/metrics.md', import.meta.url), 'utf8');

/** Rows of a section of the page: name, type, labels, meaning. */
function rowsOf(title: string): readonly (readonly string[])[] {
  const section = page.split(/^## /m).find((part) => part.startsWith(`${title}\n`)) ?? '';
  return [...section.matchAll(/^\| `(\w+)` +\| (\w+) +\| (.*?) +\| (.*?) +\|$/gm)].map((row) => row.slice(1));
}

function rowOf({ name, type, labels, help }: MetricDescription): readonly string[] {
  return [name, type, labels.map((label) => `\`${label}\``).join(', '), help.replace(/\.$/, '')];
}

describe('the page of the metrics', () => {
  it('lists every metric of a server with its type, its labels and its meaning', () => {
    const registry = new MetricsRegistry();
    const server = { engines: [], textEngine: undefined, jobTypes: new Map(), depths: () => [] };
    new ServerMetrics(registry, server, new TraceIds());
    expect(rowsOf('The server')).toEqual(registry.list().map(rowOf));
  });

  it('lists every metric of a bridge', () => {
    const registry = new MetricsRegistry();
    new BridgeMetrics(registry, { jobTypes: new Map(), running: () => 0, measurement: async () => undefined });
    expect(rowsOf('The bridge')).toEqual(registry.list().map(rowOf));
  });

  it('lists every metric of the process', () => {
    expect(rowsOf('The process')).toEqual(new MetricsRegistry({ withProcess: true }).list().map(rowOf));
  });

  it('has names by the conventions of Prometheus', () => {
    for (const [name = '', type] of [...rowsOf('The server'), ...rowsOf('The bridge')]) {
      expect(name).toMatch(/^darkroom_[a-z_]+$/);
      expect(name.endsWith('_total'), name).toBe(type === 'counter');
    }
  });
});
