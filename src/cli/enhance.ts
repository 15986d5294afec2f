import { Command } from 'commander';
import { enhance } from '../client/client.js';
import type { EnhanceRequest } from '../gen/darkroom/v1/inference_service.js';
import type { JobMetadata } from '../gen/darkroom/v1/job.js';
import { counted } from '../std/counted.js';
import { integer, number } from './options/parse-option.js';
import { addServerOptions, connectTo, type ServerOptions } from './options/server-options.js';
import { ProgressView } from './output/progress-view.js';
import { say } from './output/say.js';

interface EnhanceOptions extends ServerOptions {
  readonly model?: string;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly seed?: bigint;
  readonly watch?: boolean;
}

export function createEnhanceCommand(): Command {
  return addServerOptions(new Command('enhance'))
    .description('rewrite a prompt with the language model of a server; the result goes to standard output')
    .argument('<prompt>', 'the prompt to rewrite')
    .option('--model <name>', 'model, as the server lists it')
    .option('--max-tokens <n>', 'new tokens, 1 to 512', number)
    .option('--temperature <n>', '0 to 2; 0 always takes the likeliest token', number)
    .option('--top-p <n>', 'share of probability that tokens are drawn from', number)
    .option('--seed <n>', 'the same seed writes the same text', integer)
    .option('--watch', 'show the text on standard error as it is written')
    .action(run);
}

async function run(prompt: string, options: EnhanceOptions): Promise<void> {
  const { server, token, watch, ...rest } = options;
  const client = await connectTo({ ...(server !== undefined && { server }), ...(token !== undefined && { token }) });
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort());
  const view = new ProgressView();
  const request: Partial<EnhanceRequest> = { prompt, ...rest };
  try {
    for await (const { event, enhancedPrompt } of enhance(client, request, abort.signal)) {
      if (event?.event?.$case === 'textDelta') {
        if (watch) process.stderr.write(event.event.value.text);
        continue;
      }
      if (event !== undefined) view.show(event);
      if (event?.event?.$case !== 'completed') continue;
      if (watch) process.stderr.write('\n');
      say(`${enhancedPrompt}`);
      process.stderr.write(`${summary(event.event.value.metadata)}\n`);
    }
  } finally {
    client.close();
  }
}

function summary(metadata: JobMetadata | undefined): string {
  const { enhancement, seed } = metadata ?? {};
  if (enhancement === undefined) return '';
  const { newTokens, waitSeconds, firstTokenSeconds, totalSeconds, device, promptTokens, droppedTokens } = enhancement;
  const rate = (newTokens / Math.max(totalSeconds - firstTokenSeconds, 1e-3)).toFixed(1);
  const cut = droppedTokens > 0 ? `, ${droppedTokens} cut off` : '';
  return `${counted(newTokens, 'token')} from ${promptTokens}${cut} on ${device} in ${totalSeconds.toFixed(1)} s after ${waitSeconds.toFixed(1)} s, ${rate} a second, seed ${seed}`;
}
