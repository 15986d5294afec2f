/**
 * npm run bench attention -- [--device cpu|webgpu] [--tokens N] [--batch B]: attention over 12 heads of 128 in each spelling, one
 * thread and one process each; the errors are to the fused one on the CPU.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Dialect, defaultDialect } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { attention } from '../../src/graph/ops.js';
import { createSession } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { memoryRow, print, row, stopwatch } from './stopwatch.js';

const HEADS = 12;
const WIDTH = HEADS * 128;
const { values } = parseArgs({
  options: {
    device: { type: 'string', default: 'cpu' },
    tokens: { type: 'string', default: '4096' },
    batch: { type: 'string', default: '2' },
    spelling: { type: 'string' },
  },
});

if (values.spelling === undefined) {
  for (const spelling of ['fused', 'decomposed', 'chunked']) {
    const args = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--spelling', spelling];
    spawnSync(process.execPath, args, { stdio: ['ignore', 'inherit', 'ignore'] });
  }
  process.exit(0);
}

const provider = values.device === 'webgpu' ? 'webgpu' : 'cpu';
const shape = [Number(values.batch), Number(values.tokens), WIDTH];
const feeds = Object.fromEntries(['q', 'k', 'v'].map((name) => [name, { data: hashTensor(name, shape), shape }]));

async function run(device: 'cpu' | 'webgpu', spelling: Dialect['attention']) {
  const graph = new Graph('attention', { ...defaultDialect, attention: spelling });
  const [q, k, v] = ['q', 'k', 'v'].map((name) => graph.floatInput(name, ['B', name === 'q' ? 'L' : 'S', WIDTH]));
  if (q === undefined || k === undefined || v === undefined) throw new Error('no inputs');
  graph.output('mixed', attention(graph, { q, k, v, heads: HEADS }));
  const session = await createSession(graph, { provider: device, deviceId: 0, threads: 1 });
  await session.run(feeds);
  const lap = stopwatch();
  const { mixed = new Float32Array() } = await session.run(feeds);
  const spent = lap();
  await session.release();
  return { mixed, spent };
}

const { mixed, spent } = await run(provider, values.spelling as Dialect['attention']);
row(values.spelling, spent);
await memoryRow();
const expected = (await run('cpu', 'fused')).mixed;
const error = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (mixed[i] ?? Number.NaN))), 0);
const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
print(`error, of the largest ${(error / largest).toExponential(1)}`);
