import { isCuda } from '../../device.js';
import { Semaphore } from '../../std/semaphore.js';
import type { DeviceTensor, Feed, NetworkSession, RunOptions, SessionPlan, TensorData } from '../network-session.js';
import { type Handle, HandleScope } from './handle.js';
import { LOG_LEVEL, type OrtLibrary } from './ort-library.js';
import { createSessionOptions } from './session-options.js';
import { readTensor, writeTensor } from './tensors.js';

/** OrtDeviceAllocator and OrtMemTypeDefault */
const DEVICE_ALLOCATOR = 0;
const DEFAULT_MEMORY = 0;

/** Names of the memory of each provider, where outputs can stay. */
const MEMORY = { cpu: 'Cpu', webgpu: 'WebGPU_Buf', cuda: 'Cuda', tensorrt: 'Cuda' } as const;

/** Two runs at once in one process make WebGPU fail ("deferred dispatch count exceeds maxNumPendingDispatches"). */
const webgpu = new Semaphore(1);

/** An output that stays where the session runs. */
class CarriedValue implements DeviceTensor {
  readonly handle: Handle;

  constructor(handle: Handle) {
    this.handle = handle;
  }

  dispose(): void {
    this.handle.release();
  }
}

/** Opens a session through the C API. Loading and runs leave this thread free. */
export async function openNativeSession(library: OrtLibrary, plan: SessionPlan): Promise<NetworkSession> {
  const { api, environment } = library;
  const scope = new HandleScope();
  try {
    const options = createSessionOptions(library, plan);
    const { model } = plan;
    const session = await inTurn(plan, async () => {
      try {
        const size = model.byteLength;
        const create = () => api.callAsync('CreateSessionFromArray', environment, model, size, options.pointer);
        return library.own('Session', await library.heap.keepingFreed(create));
      } finally {
        options.release();
      }
    });
    scope.own(session);
    const memory = (name: string, id: number) =>
      library.own('MemoryInfo', api.call('CreateMemoryInfo', name, DEVICE_ALLOCATOR, id, DEFAULT_MEMORY));
    // Memory of other libraries has names of their own.
    const hasOwnMemory = plan.runtime?.providerLibrary === undefined;
    const { provider, inputs, outputs, holds, isPinned = isCuda(provider) } = plan;
    const graph = { provider, inputs, outputs, holds, isPinned };
    return new NativeSession(library, graph, {
      scope,
      session,
      host: scope.own(memory(MEMORY.cpu, 0)),
      device: scope.own(hasOwnMemory ? memory(MEMORY[plan.provider], plan.deviceId) : memory(MEMORY.cpu, 0)),
    });
  } catch (error) {
    scope.release();
    throw error;
  }
}

function inTurn<T>(
  { provider }: Pick<SessionPlan, 'provider'>,
  task: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  return provider === 'webgpu' ? webgpu.run(task, { signal }) : task();
}

/** Not the bytes of the graph, which are large where its constants are. */
type SessionGraph = Pick<SessionPlan, 'provider' | 'inputs' | 'outputs' | 'holds'> & { readonly isPinned: boolean };

interface SessionHandles {
  readonly scope: HandleScope;
  readonly session: Handle;
  readonly host: Handle;
  readonly device: Handle;
}

class NativeSession implements NetworkSession {
  readonly #library: OrtLibrary;
  readonly #graph: SessionGraph;
  readonly #handles: SessionHandles;
  readonly #running = new Set<Promise<unknown>>();
  #isReleased = false;

  constructor(library: OrtLibrary, graph: SessionGraph, handles: SessionHandles) {
    this.#library = library;
    this.#graph = graph;
    this.#handles = handles;
  }

  async run<T extends TensorData = Float32Array>(
    feeds: Readonly<Record<string, Feed>>,
    options: RunOptions = {},
  ): Promise<Readonly<Record<string, T>>> {
    if (this.#isReleased) throw new Error('the session was released');
    const run = inTurn(this.#graph, () => this.#run(feeds, options), options.signal);
    this.#running.add(run);
    try {
      return (await run) as Readonly<Record<string, T>>;
    } finally {
      this.#running.delete(run);
    }
  }

  async release(): Promise<void> {
    this.#isReleased = true;
    await Promise.allSettled(this.#running);
    await inTurn(this.#graph, async () => this.#handles.scope.release());
    await this.#library.heap.trim();
  }

  async #run(
    feeds: Readonly<Record<string, Feed>>,
    { carried, outputs = this.#graph.outputs, signal }: RunOptions,
  ): Promise<Readonly<Record<string, TensorData>>> {
    signal?.throwIfAborted();
    const library = this.#library;
    const { api, allocator } = library;
    const { session, host, device } = this.#handles;
    const { inputs, holds } = this.#graph;
    // The runtime would start without it, and leave it to each kernel to notice.
    const missing = inputs.find((name) => feeds[name] === undefined && carried?.tensors[name] === undefined);
    if (missing !== undefined) throw new Error(`input ${missing} is missing`);
    const scope = new HandleScope();
    try {
      const binding = scope.own(library.own('IoBinding', api.call('CreateIoBinding', session.pointer)));
      for (const [name, feed] of Object.entries(feeds)) {
        api.call('BindInput', binding.pointer, name, scope.own(writeTensor(library, name, feed)).pointer);
      }
      for (const [name, tensor] of Object.entries(carried?.tensors ?? {})) {
        if (!inputs.includes(name)) continue;
        if (!(tensor instanceof CarriedValue)) throw new Error(`${name} was carried from a session of another runtime`);
        api.call('BindInput', binding.pointer, name, tensor.handle.pointer);
      }
      for (const name of outputs) {
        api.call('BindOutputToDevice', binding.pointer, name, (holds.has(name) ? device : host).pointer);
      }
      await this.#runBinding(scope, binding, signal);
      const cell: [bigint | null] = [null];
      const count = api.call('GetBoundOutputValues', binding.pointer, allocator, cell);
      const pointers = cell[0] === null ? [] : api.pointersAt(cell[0], count);
      if (cell[0] !== null) api.call('AllocatorFree', allocator, cell[0]);
      const copied: [string, Handle][] = [];
      const kept: [string, DeviceTensor][] = [];
      for (const [i, pointer] of pointers.entries()) {
        const name = outputs[i] ?? '';
        const value = library.own('Value', pointer);
        const input = holds.get(name);
        if (input === undefined) copied.push([name, scope.own(value)]);
        else if (carried === undefined) scope.own(value);
        else kept.push([input, new CarriedValue(value)]);
      }
      carried?.replace(Object.fromEntries(kept));
      return Object.fromEntries(copied.map(([name, value]) => [name, readTensor(library, value)]));
    } finally {
      scope.release();
    }
  }

  async #runBinding(scope: HandleScope, binding: Handle, signal: AbortSignal | undefined): Promise<void> {
    const { api } = this.#library;
    const { session } = this.#handles;
    const options = scope.own(this.#library.own('RunOptions', api.call('CreateRunOptions')));
    api.call('RunOptionsSetRunLogSeverityLevel', options.pointer, LOG_LEVEL);
    const end = () => api.call('RunOptionsSetTerminate', options.pointer);
    signal?.addEventListener('abort', end, { once: true });
    try {
      const pointers = [session.pointer, options.pointer, binding.pointer] as const;
      if (this.#graph.isPinned) await api.runOn(this.#library.thread, ...pointers);
      else await api.callAsync('RunWithBinding', ...pointers);
    } catch (error) {
      throw signal?.aborted ? signal.reason : error;
    } finally {
      signal?.removeEventListener('abort', end);
    }
  }
}
