import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { turnOffTelemetry } from '../../environment.js';
import { CHeap } from './c-heap.js';
import { CallThread } from './call-thread.js';
import { Handle } from './handle.js';
import { type ObjectKind, OrtApi } from './ort-api.js';

/** Errors only: the runtime writes a warning for every node that it moves between providers. */
export const LOG_LEVEL = 3;

/** OrtArenaAllocator */
const ARENA_ALLOCATOR = 1;
/** kSameAsRequested: the arena grows by what is asked for, not by powers of two. */
const SAME_AS_REQUESTED = 1n;

/** The environment of ONNX Runtime in this process, with what all sessions share. It stays until the process ends. */
export class OrtLibrary {
  readonly api: OrtApi;
  readonly environment: bigint;
  /** The allocator of CPU memory. It belongs to the library. */
  readonly allocator: bigint;
  readonly heap: CHeap;
  /** Devices of each provider library, by path: a library is registered once. */
  readonly #plugins = new Map<string, readonly bigint[]>();

  #hasCpuArena = false;
  #thread: CallThread | undefined;

  constructor(api: OrtApi, heap: CHeap) {
    this.api = api;
    this.heap = heap;
    this.environment = api.call('CreateEnv', LOG_LEVEL, 'darkroom');
    this.allocator = api.call('GetAllocatorWithDefaultOptions');
  }

  /** The thread of runs that must all come from one. Started when it is asked for. */
  get thread(): CallThread {
    this.#thread ??= new CallThread();
    return this.#thread;
  }

  own(kind: ObjectKind, pointer: bigint): Handle {
    return new Handle(this.api, kind, pointer);
  }

  /**
   * Registers a library of a provider and returns the provider's devices, at least one.
   * @throws Error where the library does not load or finds no device
   */
  devicesOf(plugin: string): readonly bigint[] {
    const known = this.#plugins.get(plugin);
    if (known !== undefined) return known;
    const before = new Set(this.#devices());
    try {
      this.api.call('RegisterExecutionProviderLibrary', this.environment, plugin, plugin);
    } catch (error) {
      throw new Error(
        `the provider library ${plugin} does not load: ${error instanceof Error ? error.message : error}; correct PROVIDER_LIBRARY or unset it`,
        { cause: error },
      );
    }
    const devices = this.#devices().filter((device) => !before.has(device));
    const [first] = devices;
    if (first === undefined) {
      throw new Error(`the provider library ${plugin} finds no device on this machine; unset PROVIDER_LIBRARY`);
    }
    // A library may have several providers; a session takes devices of one.
    const name = this.api.providerOf(first);
    const own = devices.filter((device) => this.api.providerOf(device) === name);
    this.#plugins.set(plugin, own);
    return own;
  }

  /**
   * Gives all CPU sessions with `session.use_env_allocators` one arena of so many bytes. Only the first call has an effect.
   * https://onnxruntime.ai/docs/get-started/with-c.html#features
   */
  limitCpuArena(bytes: number): void {
    if (this.#hasCpuArena) return;
    this.#hasCpuArena = true;
    const settings = { max_mem: BigInt(bytes), arena_extend_strategy: SAME_AS_REQUESTED };
    const keys = Object.keys(settings);
    const values = BigUint64Array.from(Object.values(settings));
    const config = this.own('ArenaCfg', this.api.call('CreateArenaCfgV2', keys, values, keys.length));
    const memory = this.own('MemoryInfo', this.api.call('CreateMemoryInfo', 'Cpu', ARENA_ALLOCATOR, 0, 0));
    try {
      this.api.call('CreateAndRegisterAllocator', this.environment, memory.pointer, config.pointer);
    } finally {
      memory.release();
      config.release();
    }
  }

  #devices(): readonly bigint[] {
    const cell: [bigint | null] = [null];
    const count = this.api.call('GetEpDevices', this.environment, cell);
    return cell[0] === null ? [] : this.api.pointersAt(cell[0], count);
  }
}

let opened: Promise<OrtLibrary> | undefined;

/**
 * Opens onnxruntime-node's own library, once for the process.
 * @throws Error with the reason in one sentence where it does not open
 */
export function openOrtLibrary(): Promise<OrtLibrary> {
  opened ??= open();
  return opened;
}

async function open(): Promise<OrtLibrary> {
  if (process.platform !== 'linux') throw new Error(`it was not tried on ${process.platform}`);
  const koffi = await import('koffi').catch((error: unknown) => {
    throw new Error('the package koffi does not load', { cause: error });
  });
  turnOffTelemetry();
  return new OrtLibrary(new OrtApi(koffi.default, libraryPath()), new CHeap(koffi.default));
}

function libraryPath(): string {
  const root = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  const folder = join(root, 'bin', 'napi-v6', process.platform, process.arch);
  let files: readonly string[] = [];
  try {
    files = readdirSync(folder);
  } catch {
    // Named below.
  }
  const file = files.find((name) => name.startsWith('libonnxruntime.so'));
  if (file === undefined) throw new Error(`${folder} has no libonnxruntime.so`);
  return join(folder, file);
}
