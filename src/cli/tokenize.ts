import { Command } from 'commander';
import { tokenize } from '../client/client.js';
import { counted } from '../std/counted.js';
import { addServerOptions, connectTo, type ServerOptions } from './options/server-options.js';
import { say } from './output/say.js';

export function createTokenizeCommand(): Command {
  return addServerOptions(new Command('tokenize'))
    .description('count the tokens and chunks of a prompt, and show its weights')
    .argument('<text>', 'the prompt')
    .option('--model <name>', 'model, as the server lists it')
    .action(run);
}

async function run(text: string, { model, ...options }: ServerOptions & { model?: string }): Promise<void> {
  const client = await connectTo(options);
  try {
    const { encoders, phrases, problem } = await tokenize(client, { text, model: model ?? '' });
    for (const { encoder, tokens, chunks, dropped } of encoders) {
      process.stdout.write(
        `${encoder}: ${counted(tokens, 'token')} in ${chunks} of 75${dropped > 0 ? `, ${dropped} cut off` : ''}\n`,
      );
    }
    for (const { text: phrase, weight, tokens } of phrases) {
      process.stdout.write(
        `${weight.toFixed(2).padStart(6)}  ${String(tokens).padStart(3)} tokens  ${phrase.trim()}\n`,
      );
    }
    if (problem !== '') say(`read as plain text: ${problem}`);
  } finally {
    client.close();
  }
}
