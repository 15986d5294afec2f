import { dirname, relative, sep } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { Provider } from '../device.js';
import type { Graph } from '../graph/graph.js';

/** The device of a session. */
export interface SessionDevice {
  readonly provider: Provider;
  /** Index of the card, on providers that can choose one: CUDA and TensorRT. */
  readonly deviceId: number;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
}

export interface SessionOptions {
  /** Outputs that stay on the device, each with the input of the next run that takes it. */
  readonly holds?: ReadonlyMap<string, string>;
}

/** Row-major elements and their dimensions, as a session takes them. */
export interface Feed {
  /** A Uint16Array is of the bits of float16. */
  readonly data: Float32Array | Int32Array | Uint16Array;
  readonly shape: readonly number[];
}

/** Tensors that a run leaves on the device for the next one. A run takes all of them and leaves its own in their place. */
export class CarriedTensors {
  #tensors: Readonly<Record<string, Tensor>> = {};

  get tensors(): Readonly<Record<string, Tensor>> {
    return this.#tensors;
  }

  replace(tensors: Readonly<Record<string, Tensor>>): void {
    this.release();
    this.#tensors = tensors;
  }

  release(): void {
    for (const tensor of Object.values(this.#tensors)) tensor.dispose();
    this.#tensors = {};
  }
}

/** A network ready to run. `run` blocks the thread for the whole run: nothing but an engine process may call it. */
export interface NetworkSession {
  /**
   * @param carried tensors that the earlier runs left; needed by a session that `holds` outputs
   * @param outputs names of the outputs to copy from the device; omitted, all
   */
  run(
    feeds: Readonly<Record<string, Feed>>,
    carried?: CarriedTensors,
    outputs?: readonly string[],
  ): Promise<Readonly<Record<string, Float32Array>>>;
  release(): Promise<void>;
}

/** One of a run's outputs; a network without it was built wrongly. */
export function outputOf(outputs: Readonly<Record<string, Float32Array>>, name: string, network: string): Float32Array {
  const output = outputs[name];
  if (output === undefined) throw new Error(`${network} has no output`);
  return output;
}

/** Opens a session over the graph's bytes; its initializers are read where they lie, nothing is written. */
export async function createSession(
  graph: Graph,
  { provider, deviceId, threads }: SessionDevice,
  { holds = new Map() }: SessionOptions = {},
): Promise<NetworkSession> {
  const folder = commonFolder(graph.files);
  const model = graph.encode((file) => relative(folder, file).split(sep).join('/'));
  const session = await InferenceSession.create(model, {
    executionProviders: [takesDeviceId(provider) ? { name: provider, deviceId } : provider],
    graphOptimizationLevel: 'all',
    ...(threads > 0 && { intraOpNumThreads: threads }),
    // Errors only: the runtime writes a warning for every node it moves between providers.
    logSeverityLevel: 3,
    ...(provider === 'webgpu' &&
      holds.size > 0 && {
        preferredOutputLocation: Object.fromEntries([...holds.keys()].map((name) => [name, 'gpu-buffer' as const])),
      }),
    extra: { session: { model_external_initializers_file_folder_path: folder } },
  });
  return {
    async run(feeds, carried = new CarriedTensors(), wanted = graph.outputs) {
      const inputs = Object.entries(feeds).map(([name, { data, shape }]) => {
        return [name, tensorOf(data, shape)] as const;
      });
      const outputs = Object.entries(await session.run({ ...Object.fromEntries(inputs), ...carried.tensors }, wanted));
      carried.replace(
        Object.fromEntries(
          outputs.flatMap(([name, tensor]) => {
            const input = holds.get(name);
            return input === undefined ? [] : [[input, tensor as Tensor]];
          }),
        ),
      );
      // The data of a tensor on a device must not be asked for: the runtime ends the process.
      const rest = outputs.filter(([name]) => !holds.has(name));
      return Object.fromEntries(rest.map(([name, { data }]) => [name, data as Float32Array]));
    },
    release: () => session.release(),
  };
}

function tensorOf(data: Feed['data'], shape: readonly number[]): Tensor {
  if (data instanceof Int32Array) return new Tensor('int32', data, shape);
  return data instanceof Uint16Array ? new Tensor('float16', data, shape) : new Tensor('float32', data, shape);
}

/** The runtime has no such option for its other providers. */
function takesDeviceId(provider: Provider): provider is 'cuda' | 'tensorrt' {
  return provider === 'cuda' || provider === 'tensorrt';
}

/** The deepest folder that holds all files: a location may lead down from it, never up. */
function commonFolder(files: readonly string[]): string {
  let [folder = ''] = files.map((file) => dirname(file));
  for (const file of files) {
    while (!file.startsWith(folder.endsWith(sep) ? folder : folder + sep)) folder = dirname(folder);
  }
  return folder;
}
