import { Command } from 'commander';
import { connect, estimate } from '../client/client.js';
import { type RequestOptions, requestFrom, requestOptions } from './options/generate-options.js';

export function createEstimateCommand(): Command {
  const command = new Command('estimate')
    .description('tell what a job would take on a server, without running it')
    .argument('<prompt>', 'what would be made')
    .option('--server <host:port>', 'the server', process.env.DARKROOM_SERVER ?? '127.0.0.1:50051')
    .option('--token <token>', 'bearer token of the server', process.env.AUTH_TOKEN)
    .action(run);
  for (const option of requestOptions()) command.addOption(option);
  return command;
}

async function run(prompt: string, options: RequestOptions & { server: string; token?: string }): Promise<void> {
  const client = connect(options.server, options.token === undefined ? {} : { token: options.token });
  try {
    const { seconds, queueSeconds, peakMemoryBytes, width, height, denoisingSteps } = await estimate(
      client,
      await requestFrom(prompt, options),
    );
    const work = seconds === 0 ? 'not known yet: the model has not finished a job' : `${seconds.toFixed(1)} s`;
    const memory = peakMemoryBytes === 0n ? '' : `, ${(Number(peakMemoryBytes) / 2 ** 30).toFixed(1)} GiB at most`;
    process.stdout.write(
      `${width}x${height}, ${denoisingSteps} steps: ${work} after ${queueSeconds.toFixed(1)} s in the queue${memory}\n`,
    );
  } finally {
    client.close();
  }
}
