/**
 * Run by probe.ts: opens a session with one convolution on the named provider, runs it, and reports `ok` with the runtime, or why it failed.
 * A convolution is what CUDA needs a library for that is only looked for when one is run: cuDNN.
 */
import type { Provider } from '../device.js';
import { Graph } from '../graph/graph.js';
import type { Runtime } from './runtime.js';
import type { RuntimeName } from './runtime-names.js';

async function probe(provider: Provider, name: RuntimeName, library: string, deviceId: number): Promise<string> {
  // Imported here: where the addon does not load, that is the answer.
  const { createSession } = await import('./session.js');
  const { openRuntime } = await import('./runtime.js');
  const runtime = await openRuntime(name, { providerLibrary: library || undefined });
  const graph = new Graph('probe', { attention: 'decomposed', compute: 'f32' });
  const shape = [1, 1, 2, 2];
  const twice = graph.constant(Float32Array.of(2), [1, 1, 1, 1]);
  graph.output('y', graph.node('Conv', [graph.floatInput('x', shape), twice], shape));
  const session = await createSession(graph, { provider, deviceId, threads: 0, runtime });
  const { y } = await session.run({ x: { data: Float32Array.of(1, 2, 3, 4), shape } });
  return y?.join() === '2,4,6,8' ? `ok ${described(runtime)}` : `convolves wrongly: ${y?.join()}`;
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
