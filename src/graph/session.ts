import { dirname, relative, sep } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { Device } from '../pipelines/pipeline.js';
import type { Graph } from './graph.js';

export interface SessionOptions {
  readonly device: Exclude<Device, 'auto'>;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads?: number;
}

/** Row-major elements and their dimensions, as a session takes them. */
export interface Feed {
  readonly data: Float32Array | Int32Array;
  readonly shape: readonly number[];
}

/** A network ready to run. `run` blocks the thread for the whole run: nothing but an engine process may call it. */
export interface NetworkSession {
  run(feeds: Readonly<Record<string, Feed>>): Promise<Readonly<Record<string, Float32Array>>>;
  release(): Promise<void>;
}

/** Opens a session over the graph's bytes; its initializers are read where they lie, nothing is written. */
export async function createSession(graph: Graph, { device, threads = 0 }: SessionOptions): Promise<NetworkSession> {
  const folder = commonFolder(graph.files);
  const model = graph.encode((file) => relative(folder, file).split(sep).join('/'));
  const session = await InferenceSession.create(model, {
    executionProviders: [device],
    graphOptimizationLevel: 'all',
    ...(threads > 0 && { intraOpNumThreads: threads }),
    // Errors only: the runtime writes a warning for every node it moves between providers.
    logSeverityLevel: 3,
    extra: { session: { model_external_initializers_file_folder_path: folder } },
  });
  return {
    async run(feeds) {
      const inputs = Object.entries(feeds).map(([name, { data, shape }]) => {
        const tensor =
          data instanceof Int32Array ? new Tensor('int32', data, shape) : new Tensor('float32', data, shape);
        return [name, tensor] as const;
      });
      const outputs = await session.run(Object.fromEntries(inputs));
      return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data as Float32Array]));
    },
    release: () => session.release(),
  };
}

/** The deepest folder that holds all files: a location may lead down from it, never up. */
function commonFolder(files: readonly string[]): string {
  let [folder = ''] = files.map((file) => dirname(file));
  for (const file of files) {
    while (!file.startsWith(folder.endsWith(sep) ? folder : folder + sep)) folder = dirname(folder);
  }
  return folder;
}
