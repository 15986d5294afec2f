import { dirname, relative, sep } from 'node:path';
import type { Graph } from '../graph/graph.js';
import { openBindingSession } from './binding-session.js';
import { openNativeSession } from './native/native-session.js';
import type { NetworkSession, SessionDevice, SessionOptions, SessionPlan } from './network-session.js';

export * from './network-session.js';

/** Opens a session over the graph's bytes. Its initializers are read where they lie, or where the device's cache has them. */
export function createSession(
  graph: Graph,
  device: SessionDevice,
  { holds = new Map(), packsWeights = true, isCached = false }: SessionOptions = {},
): Promise<NetworkSession> {
  const folder = commonFolder(graph.files);
  const isMapped = device.provider === 'cpu' && !(packsWeights && device.packsWeights !== false);
  const plan: SessionPlan = {
    ...device,
    model: graph.encode((file) => relative(folder, file).split(sep).join('/')),
    inputs: graph.inputs.map(({ name }) => name),
    outputs: graph.outputs,
    holds,
    // The fused norm takes them so.
    keepsChannelsLast: graph.uses('GroupNorm'),
    configEntries: {
      'session.model_external_initializers_file_folder_path': folder,
      // Weights outside the arena, which grows by powers of two.
      ...(device.provider === 'cuda' && { 'session.use_device_allocator_for_initializers': '1' }),
      ...(isMapped && { 'session.disable_prepacking': '1' }),
    },
  };
  const cache = isCached && device.provider === 'cpu' ? device.cache : undefined;
  return cache === undefined ? openSession(plan) : cache.open(plan, graph, openSession);
}

function openSession(plan: SessionPlan): Promise<NetworkSession> {
  return plan.runtime?.name === 'native' ? openNativeSession(plan.runtime.library, plan) : openBindingSession(plan);
}

/** The deepest folder that holds all files: a location may lead down from it, never up. */
function commonFolder(files: readonly string[]): string {
  let [folder = ''] = files.map((file) => dirname(file));
  for (const file of files) {
    while (!file.startsWith(folder.endsWith(sep) ? folder : folder + sep)) folder = dirname(folder);
  }
  return folder;
}
