import { Command } from 'commander';
import { inspectSdxl } from '../pipelines/sdxl/inspect.js';

export function createModelsCommand(): Command {
  const models = new Command('models').description('look at checkpoints');
  models
    .command('inspect')
    .description('tell what a checkpoint is and whether it is whole, without loading it')
    .argument('<folder>', 'diffusers-layout folder')
    .option('--json', 'machine-readable')
    .action(async (folder: string, { json }: { json?: boolean }) => {
      const inspection = await inspectSdxl(folder);
      process.stdout.write(json ? `${JSON.stringify(inspection, null, 2)}\n` : describe(folder, inspection));
    });
  return models;
}

function describe(folder: string, { info, networks }: Awaited<ReturnType<typeof inspectSdxl>>): string {
  const rows = Object.entries(networks).map(
    ([name, { parameters, files }]) =>
      `  ${name.padEnd(16)} ${millions(parameters).padStart(9)} parameters  ${files.length} ${files.length === 1 ? 'file' : 'files'}`,
  );
  return [
    `${folder} is a whole SDXL checkpoint in diffusers layout.`,
    ...rows,
    `  ${'together'.padEnd(16)} ${millions(info.parameters).padStart(9)} parameters  ${(info.weightBytes / 1e9).toFixed(2)} GB, ${info.storage}`,
    `  native size ${info.nativeSize}x${info.nativeSize}, sizes a multiple of ${info.sizeMultiple}, prediction type ${info.predictionType}`,
    `  schedulers ${info.schedulers.join(', ')}`,
    '',
  ].join('\n');
}

function millions(count: number): string {
  return `${(count / 1e6).toFixed(1)} M`;
}
