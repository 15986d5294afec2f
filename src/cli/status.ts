import { Command } from 'commander';
import { listModels, serverStatus } from '../client/client.js';
import {
  type EngineStatus,
  GetServerStatusResponse,
  type Model,
  ModelState,
} from '../gen/darkroom/v1/model_service.js';
import { counted } from '../std/counted.js';
import { formatBytes } from '../std/format-bytes.js';
import { addServerOptions, connectTo, type ServerOptions } from './options/server-options.js';
import { say } from './output/say.js';

/** Time that the server has to answer, in ms. */
const ANSWER_MS = 5000;
/** Names of a kind that are listed. */
const MAX_NAMES = 20;

export function createStatusCommand(): Command {
  return addServerOptions(new Command('status'))
    .description('show the state of a server, its queue and its models')
    .option('--json', 'print JSON')
    .action(run);
}

async function run({ json, ...options }: ServerOptions & { readonly json?: boolean }): Promise<void> {
  const client = await connectTo(options);
  try {
    const status = await serverStatus(client, ANSWER_MS);
    if (json) return say(JSON.stringify(GetServerStatusResponse.toJSON(status), null, 2));
    const { version, uptimeSeconds, draining, runningJobs, queuedJobs, queueLimit, models } = status;
    say(`darkroom ${version}, up ${duration(uptimeSeconds)}${draining ? ', draining' : ''}`);
    say(`${counted(runningJobs, 'job')} running, ${queuedJobs} waiting, at most ${queueLimit}`);
    const listed = new Map((await listModels(client, ANSWER_MS)).models.map((model) => [model.name, model]));
    for (const model of models) {
      say(line(model));
      // Of several engines one may be dead while the model is ready.
      if (model.engines.length > 1) for (const engine of model.engines) say(`  ${line(engine)}`);
      for (const text of addOns(listed.get(model.name))) say(`  ${text}`);
    }
  } finally {
    client.close();
  }
}

function line({ name, state, device, residentBytes, restarts, variants, problem }: Model | EngineStatus): string {
  const cells = [
    name.padEnd(8),
    stateName(state).padEnd(10),
    device,
    residentBytes === 0n ? '' : formatBytes(Number(residentBytes)),
    variants === 0 ? '' : counted(variants, 'LoRA variant'),
    restarts === 0 ? '' : counted(restarts, 'restart'),
    problem,
  ];
  return cells.filter((cell) => cell !== '').join('  ');
}

/** Names that requests may give for a model, one line a kind; what cannot be used with its problem. */
function addOns(model: Model | undefined): readonly string[] {
  if (model === undefined) return [];
  const { loras, embeddings, controlnets, upscalers } = model;
  const kinds = { LoRAs: loras, embeddings, ControlNets: controlnets, upscalers };
  return Object.entries(kinds).flatMap(([kind, all]) => {
    if (all.length === 0) return [];
    const names = all.slice(0, MAX_NAMES).map(({ name, problem }) => (problem === '' ? name : `${name} (${problem})`));
    const more = all.length - names.length;
    return [`${kind}: ${names.join(', ')}${more > 0 ? `, and ${more} more` : ''}`];
  });
}

/** "ready" of MODEL_STATE_READY. */
function stateName(state: ModelState): string {
  const [name = ''] = Object.entries(ModelState).find(([, value]) => value === state) ?? [];
  return name.replace('MODEL_STATE_', '').toLowerCase();
}

function duration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
