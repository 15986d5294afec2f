import { promisify } from 'node:util';
import type { CallThread } from './call-thread.js';
import { OrtError, ortErrorCodes } from './ort-error.js';

/** The version of the API that these places belong to. A newer library has it, too: functions are only ever added at the end. */
const API_VERSION = 30;

/**
 * The functions of `struct OrtApi` that are called here: the place of each in the struct, what it takes, and what it writes to its last
 * parameter. Each returns an `OrtStatus *`, null when all went well.
 * https://github.com/microsoft/onnxruntime/blob/v1.30.0/include/onnxruntime/core/session/onnxruntime_c_api.h
 */
const FUNCTIONS = {
  CreateEnv: { at: 3, takes: ['int', 'string'], gives: 'pointer' },
  CreateSessionFromArray: { at: 8, takes: ['pointer', 'bytes', 'size', 'pointer'], gives: 'pointer' },
  CreateSessionOptions: { at: 10, takes: [], gives: 'pointer' },
  SetOptimizedModelFilePath: { at: 11, takes: ['pointer', 'string'], gives: undefined },
  DisableMemPattern: { at: 17, takes: ['pointer'], gives: undefined },
  SetSessionLogSeverityLevel: { at: 22, takes: ['pointer', 'int'], gives: undefined },
  SetSessionGraphOptimizationLevel: { at: 23, takes: ['pointer', 'int'], gives: undefined },
  SetIntraOpNumThreads: { at: 24, takes: ['pointer', 'int'], gives: undefined },
  CreateRunOptions: { at: 39, takes: [], gives: 'pointer' },
  RunOptionsSetRunLogSeverityLevel: { at: 41, takes: ['pointer', 'int'], gives: undefined },
  RunOptionsSetTerminate: { at: 46, takes: ['pointer'], gives: undefined },
  CreateTensorAsOrtValue: { at: 48, takes: ['pointer', 'int64s', 'size', 'int'], gives: 'pointer' },
  GetTensorMutableData: { at: 51, takes: ['pointer'], gives: 'pointer' },
  GetTensorElementType: { at: 60, takes: ['pointer'], gives: 'int' },
  GetTensorShapeElementCount: { at: 64, takes: ['pointer'], gives: 'size' },
  GetTensorTypeAndShape: { at: 65, takes: ['pointer'], gives: 'pointer' },
  CreateMemoryInfo: { at: 68, takes: ['string', 'int', 'int', 'int'], gives: 'pointer' },
  AllocatorFree: { at: 76, takes: ['pointer', 'pointer'], gives: undefined },
  GetAllocatorWithDefaultOptions: { at: 78, takes: [], gives: 'pointer' },
  AddSessionConfigEntry: { at: 130, takes: ['pointer', 'string', 'string'], gives: undefined },
  RunWithBinding: { at: 133, takes: ['pointer', 'pointer', 'pointer'], gives: undefined },
  CreateIoBinding: { at: 134, takes: ['pointer'], gives: 'pointer' },
  BindInput: { at: 136, takes: ['pointer', 'string', 'pointer'], gives: undefined },
  BindOutputToDevice: { at: 138, takes: ['pointer', 'string', 'pointer'], gives: undefined },
  GetBoundOutputValues: { at: 140, takes: ['pointer', 'pointer', 'cell'], gives: 'size' },
  CreateAndRegisterAllocator: { at: 144, takes: ['pointer', 'pointer', 'pointer'], gives: undefined },
  CreateArenaCfgV2: { at: 164, takes: ['strings', 'sizes', 'size'], gives: 'pointer' },
  SessionOptionsAppendExecutionProvider_TensorRT_V2: { at: 170, takes: ['pointer', 'pointer'], gives: undefined },
  CreateTensorRTProviderOptions: { at: 171, takes: [], gives: 'pointer' },
  UpdateTensorRTProviderOptions: { at: 172, takes: ['pointer', 'strings', 'strings', 'size'], gives: undefined },
  SessionOptionsAppendExecutionProvider_CUDA_V2: { at: 204, takes: ['pointer', 'pointer'], gives: undefined },
  CreateCUDAProviderOptions: { at: 205, takes: [], gives: 'pointer' },
  UpdateCUDAProviderOptions: { at: 206, takes: ['pointer', 'strings', 'strings', 'size'], gives: undefined },
  SessionOptionsAppendExecutionProvider: {
    at: 216,
    takes: ['pointer', 'string', 'strings', 'strings', 'size'],
    gives: undefined,
  },
  RegisterExecutionProviderLibrary: { at: 301, takes: ['pointer', 'string', 'string'], gives: undefined },
  GetEpDevices: { at: 303, takes: ['pointer', 'cell'], gives: 'size' },
  SessionOptionsAppendExecutionProvider_V2: {
    at: 304,
    takes: ['pointer', 'pointer', 'pointers', 'size', 'strings', 'strings', 'size'],
    gives: undefined,
  },
} as const satisfies Record<string, OrtFunction>;

/** Functions that release an object and return nothing. */
const RELEASES = {
  MemoryInfo: 94,
  Session: 95,
  Value: 96,
  RunOptions: 97,
  TensorTypeAndShapeInfo: 99,
  SessionOptions: 100,
  IoBinding: 135,
  ArenaCfg: 157,
  TensorRTProviderOptions: 174,
  CUDAProviderOptions: 208,
} as const;

const GET_ERROR_CODE = 1;
const GET_ERROR_MESSAGE = 2;
const RELEASE_STATUS = 93;
const EP_DEVICE_NAME = 312;
const PLACES = 313;

interface OrtFunction {
  readonly at: number;
  readonly takes: readonly ParameterKind[];
  readonly gives: ResultKind | undefined;
}

/** Parameters by kind. A `cell` is an array of one element that a pointer is written to. */
interface ParameterTypes {
  pointer: bigint;
  bytes: Uint8Array;
  string: string;
  int: number;
  size: number;
  strings: readonly string[];
  pointers: readonly bigint[];
  int64s: BigInt64Array;
  sizes: BigUint64Array;
  cell: [bigint | null];
}

interface ResultTypes {
  pointer: bigint;
  int: number;
  size: number;
}

type ParameterKind = keyof ParameterTypes;
type ResultKind = keyof ResultTypes;
type FunctionName = keyof typeof FUNCTIONS;
export type ObjectKind = keyof typeof RELEASES;
type ArgumentsOf<T extends readonly ParameterKind[]> = { -readonly [I in keyof T]: ParameterTypes[T[I]] };
type Arguments<N extends FunctionName> = ArgumentsOf<(typeof FUNCTIONS)[N]['takes']>;
type Result<N extends FunctionName> = (typeof FUNCTIONS)[N]['gives'] extends infer G extends ResultKind
  ? ResultTypes[G]
  : undefined;

type Koffi = typeof import('koffi')['default'];
type NativeFunction = ReturnType<ReturnType<Koffi['load']>['func']>;

/** Stack of a call on a worker thread, as much as the main thread has. Koffi's 128 KiB are too few for loading a graph. */
const ASYNC_STACK_BYTES = 8 * 2 ** 20;

/** ONNX Runtime's C API. Its calls throw an OrtError; no status is left to the caller. */
export class OrtApi {
  readonly version: string;
  /** Held: koffi unloads a library whose object was collected, and its code with it. */
  readonly loaded: ReturnType<Koffi['load']>;
  readonly #koffi: Koffi;
  readonly #functions: Readonly<Record<FunctionName, NativeFunction>>;
  readonly #releases: Readonly<Record<ObjectKind, (pointer: bigint) => void>>;
  readonly #code: (status: bigint) => number;
  readonly #message: (status: bigint) => string;
  readonly #releaseStatus: (status: bigint) => void;
  readonly #providerOf: (device: bigint) => string;
  readonly #runWithBinding: bigint;

  /** @throws Error where the library does not load or has another version of the API */
  constructor(koffi: Koffi, path: string) {
    this.#koffi = koffi;
    koffi.config({ async_stack_size: ASYNC_STACK_BYTES });
    this.loaded = koffi.load(path);
    const base = this.loaded.func('OrtGetApiBase', 'void *', [])() as bigint;
    // struct OrtApiBase
    const [getApi, getVersion] = koffi.decode(base, 'void *', 2) as [bigint, bigint];
    this.version = koffi.call(getVersion, koffi.proto('str', []));
    const api = koffi.call(getApi, koffi.proto('void *', ['uint32_t']), API_VERSION) as bigint | null;
    if (api === null) throw new Error(`ONNX Runtime ${this.version} does not have version ${API_VERSION} of its C API`);
    const places = koffi.decode(api, 'void *', PLACES) as bigint[];
    const at = (place: number, result: string, takes: readonly Type[]) =>
      koffi.decode(places[place] ?? 0n, koffi.proto(result, [...takes])) as NativeFunction;

    const out = (type: string) => koffi.out(koffi.pointer(type));
    const parameters: Readonly<Record<ParameterKind, Type>> = {
      pointer: 'void *',
      bytes: 'void *',
      string: 'str',
      int: 'int',
      size: 'size_t',
      strings: koffi.pointer('str'),
      pointers: koffi.pointer('void *'),
      int64s: koffi.pointer('int64_t'),
      sizes: koffi.pointer('uint64_t'),
      cell: out('void *'),
    };
    const results: Readonly<Record<ResultKind, Type>> = {
      pointer: out('void *'),
      int: out('int'),
      size: out('size_t'),
    };
    this.#functions = mapValues(FUNCTIONS, ({ at: place, takes, gives }: OrtFunction) =>
      at(place, 'void *', [...takes.map((kind) => parameters[kind]), ...(gives ? [results[gives]] : [])]),
    );
    this.#releases = mapValues(RELEASES, (place) => at(place, 'void', ['void *']));
    this.#code = at(GET_ERROR_CODE, 'int', ['void *']);
    this.#message = at(GET_ERROR_MESSAGE, 'str', ['void *']);
    this.#releaseStatus = at(RELEASE_STATUS, 'void', ['void *']);
    this.#providerOf = at(EP_DEVICE_NAME, 'str', ['void *']);
    this.#runWithBinding = places[FUNCTIONS.RunWithBinding.at] ?? 0n;
  }

  /** @throws OrtError */
  call<N extends FunctionName>(name: N, ...args: Arguments<N>): Result<N> {
    const { gives }: OrtFunction = FUNCTIONS[name];
    const out: unknown[] = gives === undefined ? [] : [null];
    this.#check(this.#functions[name](...args, ...(gives === undefined ? [] : [out])) as bigint | null);
    return out[0] as Result<N>;
  }

  /** The same on a worker thread: the event loop goes on. Bytes must not change meanwhile. */
  async callAsync<N extends FunctionName>(name: N, ...args: Arguments<N>): Promise<Result<N>> {
    const { gives }: OrtFunction = FUNCTIONS[name];
    const out: unknown[] = gives === undefined ? [] : [null];
    const call = promisify(this.#functions[name].async) as (...all: unknown[]) => Promise<bigint | null>;
    this.#check(await call(...args, ...(gives === undefined ? [] : [out])));
    return out[0] as Result<N>;
  }

  /** RunWithBinding on a thread that is the same for every run. */
  async runOn(thread: CallThread, ...pointers: Arguments<'RunWithBinding'>): Promise<void> {
    this.#check(await thread.call(this.#runWithBinding, pointers));
  }

  release(kind: ObjectKind, pointer: bigint): void {
    this.#releases[kind](pointer);
  }

  /** Name of the provider that a device of `GetEpDevices` belongs to. */
  providerOf(device: bigint): string {
    return this.#providerOf(device);
  }

  pointersAt(pointer: bigint, count: number): readonly bigint[] {
    return this.#koffi.decode(pointer, 'void *', count) as bigint[];
  }

  /** Memory of the library. The view must not be used after the library has freed it. */
  memoryAt(pointer: bigint, bytes: number): ArrayBuffer {
    return this.#koffi.view(pointer, bytes);
  }

  #check(status: bigint | null): void {
    if (status === null) return;
    const [code, message] = [this.#code(status), this.#message(status)];
    this.#releaseStatus(status);
    throw new OrtError(ortErrorCodes[code] ?? 'FAIL', message);
  }
}

type Type = string | import('koffi').TypeObject | ReturnType<Koffi['out']>;

function mapValues<K extends string, V, R>(record: Readonly<Record<K, V>>, change: (value: V) => R): Record<K, R> {
  return Object.fromEntries(Object.entries<V>(record).map(([key, value]) => [key, change(value)])) as Record<K, R>;
}
