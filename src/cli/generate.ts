import { Command } from 'commander';
import { type DarkroomClient, generate } from '../client/client.js';
import { AssetSaver } from '../client/save-assets.js';
import type { GenerateRequest } from '../gen/darkroom/v1/inference_service.js';
import { contractJobTypes, jobTypeOfValue } from '../job-types.js';
import { counted } from '../std/counted.js';
import { type RequestOptions, requestFrom, requestOptions } from './options/generate-options.js';
import { addServerOptions, connectTo, type ServerOptions } from './options/server-options.js';
import { prepareFolder } from './output/output-path.js';
import { ProgressView } from './output/progress-view.js';
import { say } from './output/say.js';

interface GenerateOptions extends RequestOptions, ServerOptions {
  readonly out: string;
}

export function createGenerateCommand(): Command {
  const command = addServerOptions(new Command('generate'))
    .description('generate images or a video on a server and write the files to a folder')
    .argument('<prompt>', 'what to generate')
    .option('--out <folder>', 'where files go', 'out')
    .action(run);
  for (const option of requestOptions()) command.addOption(option);
  return command;
}

async function run(prompt: string, options: GenerateOptions): Promise<void> {
  const client = await connectTo(options);
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort());
  try {
    const request = await requestFrom(prompt, options);
    await prepareFolder('--out', options.out);
    await generateFiles(client, request, options.out, abort.signal);
  } finally {
    client.close();
  }
}

/** Runs a job, shows its progress and writes its files. Returns their paths. */
async function generateFiles(
  client: DarkroomClient,
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
        say(`wrote ${paths[i]} (${width}x${height}, seed ${seed})`);
      }
      const seconds = metadata?.generationSeconds.toFixed(1);
      say(`${seconds} s on ${metadata?.device}, ${counted(metadata?.steps ?? 0, 'step')}, ${metadata?.scheduler}`);
      if (metadata?.embeddings.length) say(`embeddings: ${metadata.embeddings.join(', ')}`);
      if (metadata?.enhancedPrompt) say(`enhanced prompt: ${metadata.enhancedPrompt}`);
      if (metadata?.promptProblem) {
        const what = jobTypeOfValue(contractJobTypes, metadata.jobType)?.isEnhanced
          ? 'the prompt was not enhanced'
          : 'weights were left out';
        process.stderr.write(`${what}: ${metadata.promptProblem}\n`);
      }
      if (metadata?.referenceProblem) process.stderr.write(`${metadata.referenceProblem}\n`);
      if (metadata?.droppedTokens)
        process.stderr.write(
          `${counted(metadata.droppedTokens, 'token')} of the prompt ${metadata.droppedTokens === 1 ? 'was' : 'were'} cut off\n`,
        );
    }
  }
  return paths;
}
