import { Command } from 'commander';
import { estimate } from '../client/client.js';
import { counted } from '../std/counted.js';
import { formatBytes } from '../std/format-bytes.js';
import { type RequestOptions, requestFrom, requestOptions } from './options/generate-options.js';
import { addServerOptions, connectTo, type ServerOptions } from './options/server-options.js';

export function createEstimateCommand(): Command {
  const command = addServerOptions(new Command('estimate'))
    .description('estimate time and memory of a job on a server, without running it')
    .argument('<prompt>', 'what would be generated')
    .action(run);
  for (const option of requestOptions()) command.addOption(option);
  return command;
}

async function run(prompt: string, options: RequestOptions & ServerOptions): Promise<void> {
  const client = await connectTo(options);
  try {
    const { seconds, queueSeconds, peakMemoryBytes, devicePeakBytes, width, height, denoisingSteps } = await estimate(
      client,
      await requestFrom(prompt, options),
    );
    const work = seconds === 0 ? 'not known yet: the model has not finished a job' : `${seconds.toFixed(1)} s`;
    const memory = peakMemoryBytes === 0n ? '' : `, ${formatBytes(Number(peakMemoryBytes))} at most`;
    const device = devicePeakBytes === 0n ? '' : `, ${formatBytes(Number(devicePeakBytes))} of device memory`;
    process.stdout.write(
      `${width}x${height}, ${counted(denoisingSteps, 'step')}: ${work} after ${queueSeconds.toFixed(1)} s in the queue${memory}${device}\n`,
    );
  } finally {
    client.close();
  }
}
