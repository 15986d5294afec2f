import { Command } from 'commander';
import { connect, generate } from '../client/client.js';
import { AssetSaver } from '../client/save-assets.js';
import type { GenerateRequest } from '../gen/darkroom/v1/inference_service.js';
import { JobType } from '../gen/darkroom/v1/job.js';
import { type RequestOptions, requestFrom, requestOptions } from './options/generate-options.js';
import { ProgressView } from './output/progress-view.js';

const ENHANCED: readonly JobType[] = [
  JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED,
  JobType.JOB_TYPE_IMAGE7B_HIGH_ENHANCED,
  JobType.JOB_TYPE_VIDEO7B_FAST_ENHANCED,
  JobType.JOB_TYPE_VIDEO7B_HIGH_ENHANCED,
];

interface GenerateOptions extends RequestOptions {
  readonly server: string;
  readonly token?: string;
  readonly out: string;
}

export function createGenerateCommand(): Command {
  const command = new Command('generate')
    .description('make pictures on a server and write them to a folder')
    .argument('<prompt>', 'what to make')
    .option('--server <host:port>', 'the server', process.env.DARKROOM_SERVER ?? '127.0.0.1:50051')
    .option('--token <token>', 'bearer token of the server', process.env.AUTH_TOKEN)
    .option('--out <folder>', 'where files go', 'out')
    .action(run);
  for (const option of requestOptions()) command.addOption(option);
  return command;
}

async function run(prompt: string, options: GenerateOptions): Promise<void> {
  const client = connect(options.server, options.token === undefined ? {} : { token: options.token });
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort());
  try {
    await generateFiles(client, await requestFrom(prompt, options), options.out, abort.signal);
  } finally {
    client.close();
  }
}

/** Runs a job, shows its progress and writes its files; returns their paths. */
async function generateFiles(
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
      if (metadata?.enhancedPrompt) process.stdout.write(`enhanced prompt: ${metadata.enhancedPrompt}\n`);
      if (metadata?.promptProblem) {
        const what = ENHANCED.includes(metadata.jobType) ? 'the prompt was not enhanced' : 'weights were left out';
        process.stderr.write(`${what}: ${metadata.promptProblem}\n`);
      }
      if (metadata?.referenceProblem) process.stderr.write(`${metadata.referenceProblem}\n`);
      if (metadata?.droppedTokens)
        process.stderr.write(`${metadata.droppedTokens} tokens of the prompt were cut off\n`);
    }
  }
  return paths;
}
