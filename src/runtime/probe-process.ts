/** Run by probe.ts: opens a session with one Add on the named provider, runs it, and reports `ok` with the runtime, or why it failed. */
import type { Provider } from '../device.js';
import { Graph } from '../graph/graph.js';
import { add } from '../graph/ops.js';
import type { Runtime } from './runtime.js';
import type { RuntimeName } from './runtime-names.js';

async function probe(provider: Provider, name: RuntimeName, library: string, deviceId: number): Promise<string> {
  // Imported here: where the addon does not load, that is the answer.
  const { createSession } = await import('./session.js');
  const { openRuntime } = await import('./runtime.js');
  const runtime = await openRuntime(name, { providerLibrary: library || undefined });
  const graph = new Graph('probe', { attention: 'decomposed', compute: 'f32' });
  const x = graph.floatInput('x', [4]);
  graph.output('y', add(graph, x, x));
  const session = await createSession(graph, { provider, deviceId, threads: 0, runtime });
  const { y } = await session.run({ x: { data: Float32Array.of(1, 2, 3, 4), shape: [4] } });
  return y?.join() === '2,4,6,8' ? `ok ${described(runtime)}` : `adds wrongly: ${y?.join()}`;
}

function described(runtime: Runtime): string {
  if (runtime.name === 'native') return 'the native runtime';
  return `the Node binding${runtime.reason === undefined ? '' : `: the native runtime does not open, ${runtime.reason}`}`;
}

const [, , provider, runtime, library = '', deviceId] = process.argv;
const answer = await probe(provider as Provider, runtime as RuntimeName, library, Number(deviceId)).catch(
  (error: unknown) => (error instanceof Error ? error.message : String(error)).split('\n')[0],
);
process.send?.(answer, () => process.exit(0));
