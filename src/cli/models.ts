import { Command, InvalidArgumentError, Option } from 'commander';
import { type FloatType, floatTypes } from '../graph/safetensors.js';
import { inspectSdxl, type SdxlInspection } from '../pipelines/sdxl/inspect.js';
import { syntheticSizes, writeSyntheticSdxl } from '../synthetic/sdxl.js';
import { type SourceOptions, sourceFrom, sourceOptions } from './source-options.js';

export function createModelsCommand(): Command {
  const models = new Command('models').description('look at checkpoints');
  const inspect = models
    .command('inspect')
    .description('tell what a checkpoint is and whether it is whole, without loading it')
    .argument('<path>', 'diffusers-layout folder, or single .safetensors file in the original layout')
    .option('--json', 'machine-readable')
    .action(async (path: string, { json, ...options }: { json?: boolean } & SourceOptions) => {
      const inspection = await inspectSdxl(sourceFrom(path, options));
      process.stdout.write(json ? `${JSON.stringify(inspection, null, 2)}\n` : describe(path, inspection));
    });
  for (const option of sourceOptions()) inspect.addOption(option);
  models
    .command('synthesize')
    .description('write a model of made-up weights, to measure with: its pictures are noise')
    .argument('<model>', 'sdxl-tiny or sdxl-base')
    .argument('<path>', 'a folder, or a file that ends in .safetensors for the original layout')
    .addOption(new Option('--dtype <type>', 'storage type of the weights').choices(floatTypes).default('F16'))
    .action(async (model: string, path: string, { dtype }: { dtype: FloatType }) => {
      const size = syntheticSizes.find((name) => name === model);
      if (size === undefined)
        throw new InvalidArgumentError(`model "${model}" must be one of ${syntheticSizes.join(', ')}`);
      const written = await writeSyntheticSdxl(path, size, dtype);
      process.stdout.write(`wrote ${written}\n`);
    });
  return models;
}

/** Spare keys that are spelled out. */
const MAX_UNUSED_SHOWN = 8;

function describe(path: string, { layout, info, networks }: SdxlInspection): string {
  const rows = Object.entries(networks).map(
    ([name, { parameters, files }]) =>
      `  ${name.padEnd(16)} ${millions(parameters).padStart(9)} parameters  ${files.length} ${files.length === 1 ? 'file' : 'files'}`,
  );
  const { unused } = info;
  const rest = unused.length > MAX_UNUSED_SHOWN ? ` and ${unused.length - MAX_UNUSED_SHOWN} more` : '';
  return [
    `${path} is a whole SDXL checkpoint in ${layout === 'diffusers' ? "diffusers' layout" : 'the original layout'}.`,
    ...rows,
    `  ${'together'.padEnd(16)} ${millions(info.parameters).padStart(9)} parameters  ${(info.weightBytes / 1e9).toFixed(2)} GB, ${info.storage}`,
    `  native size ${info.nativeWidth}x${info.nativeHeight}, sizes a multiple of ${info.sizeMultiple}, prediction type ${info.predictionType}`,
    `  schedulers ${info.schedulers.join(', ')}`,
    ...(unused.length > 0 ? [`  not used: ${unused.slice(0, MAX_UNUSED_SHOWN).join(', ')}${rest}`] : []),
    '',
  ].join('\n');
}

function millions(count: number): string {
  return `${(count / 1e6).toFixed(1)} M`;
}
