import { Command, InvalidArgumentError } from 'commander';
import { connect, generate } from '../client/client.js';
import { AssetSaver } from '../client/save-assets.js';
import type { GenerateRequest } from '../gen/darkroom/v1/inference_service.js';
import { JobType } from '../gen/darkroom/v1/job.js';
import { ProgressView } from './progress.js';

interface GenerateOptions {
  readonly server: string;
  readonly token?: string;
  readonly out: string;
  readonly jobId?: string;
  readonly jobType?: string;
  readonly model?: string;
  readonly negative?: string;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly guidance?: number;
  readonly scheduler?: string;
  readonly numImages?: number;
  readonly seed?: bigint;
}

export function createGenerateCommand(): Command {
  return new Command('generate')
    .description('make pictures on a server and write them to a folder')
    .argument('<prompt>', 'what to make')
    .option('--server <host:port>', 'the server', process.env.DARKROOM_SERVER ?? '127.0.0.1:50051')
    .option('--token <token>', 'bearer token of the server', process.env.AUTH_TOKEN)
    .option('--out <folder>', 'where files go', 'out')
    .option('--job-id <id>', 'idempotency key; the files are named after it')
    .option('--job-type <name>', 'preset, for example sdxl_image_high')
    .option('--model <name>', 'model, as the server lists it')
    .option('--negative <text>', 'negative prompt')
    .option('--width <pixels>', 'multiple of 8', number)
    .option('--height <pixels>', 'multiple of 8', number)
    .option('--steps <n>', 'denoising steps', number)
    .option('--guidance <scale>', 'guidance scale', number)
    .option('--scheduler <name>', 'scheduler, as the server lists it')
    .option('--num-images <n>', '1, 3 or 6', number)
    .option('--seed <n>', 'seed of the first picture', integer)
    .action(run);
}

async function run(prompt: string, options: GenerateOptions): Promise<void> {
  const client = connect(options.server, options.token === undefined ? {} : { token: options.token });
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort());
  try {
    await generateFiles(client, requestOf(prompt, options), options.out, abort.signal);
  } finally {
    client.close();
  }
}

/** Runs a job, shows its progress and writes its files; returns their paths. */
export async function generateFiles(
  client: ReturnType<typeof connect>,
  request: Partial<GenerateRequest>,
  folder: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const view = new ProgressView();
  const paths: string[] = [];
  let saver: AssetSaver | undefined;
  for await (const event of generate(client, request, signal)) {
    view.show(event);
    saver ??= new AssetSaver(folder, event.jobId);
    if (event.event?.$case === 'assetChunk') {
      const saved = await saver.add(event.event.value);
      if (saved !== undefined) paths.push(saved.path);
    } else if (event.event?.$case === 'completed') {
      const { assets, metadata } = event.event.value;
      for (const [i, { width, height, seed }] of assets.entries()) {
        process.stdout.write(`wrote ${paths[i]} (${width}x${height}, seed ${seed})\n`);
      }
      const seconds = metadata?.generationSeconds.toFixed(1);
      process.stdout.write(`${seconds} s on ${metadata?.device}, ${metadata?.steps} steps, ${metadata?.scheduler}\n`);
    }
  }
  return paths;
}

function requestOf(prompt: string, options: GenerateOptions): Partial<GenerateRequest> {
  return {
    prompt,
    jobId: options.jobId ?? '',
    jobType: options.jobType === undefined ? 0 : jobType(options.jobType),
    model: options.model ?? '',
    negativePrompt: options.negative,
    width: options.width ?? 0,
    height: options.height ?? 0,
    steps: options.steps,
    guidanceScale: options.guidance,
    scheduler: options.scheduler ?? '',
    numImages: options.numImages ?? 0,
    seed: options.seed,
  };
}

function jobType(name: string): JobType {
  const known = Object.entries(JobType).filter(([key]) => key !== 'JOB_TYPE_UNSPECIFIED');
  const found = known.find(([key]) => key === `JOB_TYPE_${name.toUpperCase()}`);
  if (found !== undefined) return found[1];
  const names = known.map(([key]) => key.replace('JOB_TYPE_', '').toLowerCase());
  throw new InvalidArgumentError(`job type "${name}" must be one of ${names.join(', ')}`);
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('must be a number.');
  return value;
}

function integer(text: string): bigint {
  if (!/^-?\d{1,19}$/.test(text)) throw new InvalidArgumentError('must be a whole number.');
  return BigInt(text);
}
