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
        return await api.callAsync('CreateSessionFromArray', environment, model, model.byteLength, options.pointer);
      } finally {
        options.release();
      }
    });
    const memory = (name: string, id: number) =>
      library.own('MemoryInfo', api.call('CreateMemoryInfo', name, DEVICE_ALLOCATOR, id, DEFAULT_MEMORY));
    // Memory of other libraries has names of their own.
    const hasOwnMemory = plan.runtime?.providerLibrary === undefined;
    return new NativeSession(library, plan, {
      scope,
      session: scope.own(library.own('Session', session)),
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
  return provider === 'webgpu' ? webgpu.run(task, signal) : task();
}

interface SessionHandles {
  readonly scope: HandleScope;
  readonly session: Handle;
  readonly host: Handle;
  readonly device: Handle;
}

class NativeSession implements NetworkSession {
  readonly #library: OrtLibrary;
  readonly #plan: SessionPlan;
  readonly #handles: SessionHandles;
  readonly #running = new Set<Promise<unknown>>();
  #isReleased = false;

  constructor(library: OrtLibrary, plan: SessionPlan, handles: SessionHandles) {
    this.#library = library;
    this.#plan = plan;
    this.#handles = handles;
  }

  async run<T extends TensorData = Float32Array>(
    feeds: Readonly<Record<string, Feed>>,
    options: RunOptions = {},
  ): Promise<Readonly<Record<string, T>>> {
    if (this.#isReleased) throw new Error('the session was released');
    const run = inTurn(this.#plan, () => this.#run(feeds, options), options.signal);
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
    await inTurn(this.#plan, async () => this.#handles.scope.release());
    await this.#library.trim();
  }

  async #run(
    feeds: Readonly<Record<string, Feed>>,
    { carried, outputs = this.#plan.outputs, signal }: RunOptions,
  ): Promise<Readonly<Record<string, TensorData>>> {
    signal?.throwIfAborted();
    const library = this.#library;
    const { api, allocator } = library;
    const { session, host, device } = this.#handles;
    const { holds } = this.#plan;
    const scope = new HandleScope();
    try {
      const binding = scope.own(library.own('IoBinding', api.call('CreateIoBinding', session.pointer)));
      for (const [name, feed] of Object.entries(feeds)) {
        api.call('BindInput', binding.pointer, name, scope.own(writeTensor(library, name, feed)).pointer);
      }
      for (const [name, tensor] of Object.entries(carried?.tensors ?? {})) {
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
      const values = pointers.map((pointer) => library.own('Value', pointer));
      const kept: Record<string, DeviceTensor> = {};
      const copied: Record<string, TensorData> = {};
      for (const [i, name] of outputs.entries()) {
        const value = values[i];
        const input = holds.get(name);
        if (value === undefined) continue;
        if (input !== undefined && carried !== undefined) {
          kept[input] = new CarriedValue(value);
          continue;
        }
        scope.own(value);
        if (input === undefined) copied[name] = readTensor(library, value);
      }
      carried?.replace(kept);
      return copied;
    } finally {
      scope.release();
    }
  }

  async #runBinding(scope: HandleScope, binding: Handle, signal: AbortSignal | undefined): Promise<void> {
    const { api } = this.#library;
    const options = scope.own(this.#library.own('RunOptions', api.call('CreateRunOptions')));
    api.call('RunOptionsSetRunLogSeverityLevel', options.pointer, LOG_LEVEL);
    const end = () => api.call('RunOptionsSetTerminate', options.pointer);
    signal?.addEventListener('abort', end, { once: true });
    try {
      await api.callAsync('RunWithBinding', this.#handles.session.pointer, options.pointer, binding.pointer);
    } catch (error) {
      throw signal?.aborted ? signal.reason : error;
    } finally {
      signal?.removeEventListener('abort', end);
    }
  }
}
