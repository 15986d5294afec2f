import { isCuda, type Provider } from '../device.js';
import type { Graph } from '../graph/graph.js';
import type { Runtime } from './runtime.js';

/** The device of a session. */
export interface SessionDevice {
  readonly provider: Provider;
  /** Index of the card, on providers that can choose one: CUDA and TensorRT. */
  readonly deviceId: number;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
  /** Omitted: the Node binding. */
  readonly runtime?: Runtime | undefined;
  /** CUDA through the native runtime: multiplies float32 matrices in TF32 on cards that can. Omitted: true, the library's default. */
  readonly tf32?: boolean | undefined;
  /**
   * Through the native runtime: most memory of an arena, in bytes. On the CPU all sessions of the process share one, on CUDA each has its
   * own. Omitted: no limit.
   */
  readonly memoryLimitBytes?: number | undefined;
  /**
   * Through the native runtime: all runs come from one thread, which other such sessions share. Omitted: on CUDA and TensorRT, whose
   * handles belong to a thread.
   */
  readonly isPinned?: boolean | undefined;
  /** False: as `SessionOptions` has it, for all sessions on the device. Omitted: true. */
  readonly packsWeights?: boolean | undefined;
  /** Prepared weights on the disk, for sessions on the CPU that are `isCached`. Omitted: none. */
  readonly cache?: SessionCache | undefined;
}

export interface SessionOptions {
  /** Outputs that stay on the device, each with the input of the next run that takes it. */
  readonly holds?: ReadonlyMap<string, string>;
  /**
   * False: the CPU's kernels take matrices as they are instead of packing them once, which makes loading faster and runs slower. For
   * sessions that are released after a few runs. Omitted: true.
   */
  readonly packsWeights?: boolean;
  /** Opens the session from the device's cache, and writes it there first if need be. Omitted: false. */
  readonly isCached?: boolean;
}

/** A session to open: the graph's bytes, and how its weights are found. */
export interface SessionPlan extends SessionDevice {
  readonly model: Uint8Array;
  /** Names of the graph's inputs and outputs. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly holds: ReadonlyMap<string, string>;
  readonly configEntries: Readonly<Record<string, string>>;
  /** CUDA through the native runtime convolves over channels that lie last, and moves them where they do not. Omitted: false. */
  readonly keepsChannelsLast?: boolean | undefined;
  /** The graph is used as it is: it was optimised when it was written. Omitted: false. */
  readonly isOptimized?: boolean | undefined;
  /** File that the optimised graph is written to. Omitted: it is not written. */
  readonly saveTo?: string | undefined;
}

/**
 * True where the runtime may take one buffer for all values of a run, which it plans from the run before. On the CPU and on CUDA that buffer
 * lies beside what the arena has kept from that run: on an H100 the second decode of SDXL's VAE, whose values are 3.2 GB, took 3.0 GB more.
 * On the CPU a run is no faster for it.
 */
export function plansBuffers({ provider }: Pick<SessionPlan, 'provider'>): boolean {
  return provider !== 'cpu' && !isCuda(provider);
}

/** Graphs on the disk as the runtime optimised them, with their weights as its kernels take them. */
export interface SessionCache {
  /**
   * Opens the session of a plan from the cache, or as `openPlan` opens it.
   * @param graph the plan's
   */
  open(
    plan: SessionPlan,
    graph: Pick<Graph, 'name' | 'files' | 'externalElements'>,
    openPlan: (plan: SessionPlan) => Promise<NetworkSession>,
  ): Promise<NetworkSession>;
}

export type TensorData = Float32Array | Int32Array | BigInt64Array | Uint16Array;

/** Row-major elements and their dimensions, as a session takes them. */
export interface Feed {
  readonly data: TensorData;
  readonly shape: readonly number[];
  /** Type of the elements of a Uint16Array. Omitted: f16. */
  readonly half?: 'f16' | 'bf16';
}

/** A tensor that lies where its session runs. */
export interface DeviceTensor {
  dispose(): void;
}

/**
 * Tensors that a run leaves on the device for the next one. A run takes those that it has inputs for, and leaves its own in the place
 * of all of them.
 */
export class CarriedTensors {
  #tensors: Readonly<Record<string, DeviceTensor>> = {};

  get tensors(): Readonly<Record<string, DeviceTensor>> {
    return this.#tensors;
  }

  replace(tensors: Readonly<Record<string, DeviceTensor>>): void {
    this.release();
    this.#tensors = tensors;
  }

  release(): void {
    for (const tensor of Object.values(this.#tensors)) tensor.dispose();
    this.#tensors = {};
  }
}

export interface RunOptions {
  /** Tensors that the earlier runs left; needed by a session that `holds` outputs. */
  readonly carried?: CarriedTensors | undefined;
  /** Names of the outputs to copy from the device. Omitted: all. */
  readonly outputs?: readonly string[] | undefined;
  /** Ends the run. The Node binding only looks at it before the run. */
  readonly signal?: AbortSignal | undefined;
}

/** A network ready to run. With the Node binding `run` blocks the thread for the whole run: nothing but an engine process may call it. */
export interface NetworkSession {
  /**
   * Floats leave every graph of darkroom in float32; other outputs come in their own type.
   * @throws the signal's reason for a run that it ended
   */
  run<T extends TensorData = Float32Array>(
    feeds: Readonly<Record<string, Feed>>,
    options?: RunOptions,
  ): Promise<Readonly<Record<string, T>>>;
  /** Waits for runs in flight. */
  release(): Promise<void>;
}

/** One of a run's outputs; a network without it was built wrongly. */
export function outputOf(outputs: Readonly<Record<string, Float32Array>>, name: string, network: string): Float32Array {
  const output = outputs[name];
  if (output === undefined) throw new Error(`${network} has no output`);
  return output;
}
