import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { Family, ModelInfo } from '../pipelines/pipeline.js';
import { inspectSdxl, type SdxlInspection } from '../pipelines/sdxl/inspect.js';
import { inspectWan, type WanInspection } from '../pipelines/wan/inspect.js';
import type { WanVariant } from '../pipelines/wan/model/variant.js';
import { syntheticQwenSizes, writeSyntheticQwen } from '../synthetic/qwen.js';
import { syntheticSizes, writeSyntheticSdxl } from '../synthetic/sdxl.js';
import { syntheticWanSizes, writeSyntheticWan } from '../synthetic/wan.js';
import { type FloatType, floatTypes, readSafetensors } from '../weights/safetensors.js';
import { addConvertCommand } from './models/convert.js';
import { describeLora, inspectLora } from './models/inspect-lora.js';
import { type SourceOptions, sourceFrom, sourceOptions } from './options/source-options.js';

const sizes: readonly string[] = [...syntheticSizes, ...syntheticWanSizes, ...syntheticQwenSizes];

interface InspectOptions extends SourceOptions {
  readonly json?: boolean;
  readonly imageEncoder?: string;
}

export function createModelsCommand(): Command {
  const models = new Command('models').description('look at checkpoints');
  const inspect = models
    .command('inspect')
    .description('tell what a checkpoint or a LoRA is and whether it is whole, without loading it')
    .argument(
      '<path>',
      'diffusers-layout folder, or what the original code has: one .safetensors file, or a folder for WAN',
    )
    .option('--json', 'machine-readable')
    .option(
      '--image-encoder <path>',
      "of a WAN that looks at pictures, CLIP's in place of the checkpoint's (WAN_IMAGE_ENCODER)",
    )
    .action(async (path: string, { json, ...options }: InspectOptions) => {
      const lora = await inspectLora(path);
      if (lora !== undefined) {
        process.stdout.write(json ? `${JSON.stringify(lora, null, 2)}\n` : describeLora(path, lora));
        return;
      }
      const { vae, textEncoder, imageEncoder, tokenizer } = options;
      const inspection = (await isWan(path))
        ? await inspectWan({ path, vae, textEncoder, imageEncoder, tokenizer })
        : await inspectSdxl(sourceFrom(path, options));
      process.stdout.write(json ? `${JSON.stringify(inspection, null, 2)}\n` : describe(path, inspection));
    });
  for (const option of sourceOptions()) inspect.addOption(option);
  models
    .command('synthesize')
    .description('write a model of made-up weights, to measure with: its pictures are noise')
    .argument('<model>', sizes.join(', '))
    .argument('<path>', 'a folder, or for SDXL a file that ends in .safetensors for the original layout')
    .addOption(
      new Option('--dtype <type>', 'storage type of the weights: F16 for SDXL, BF16 for the others').choices(
        floatTypes,
      ),
    )
    .action(async (model: string, path: string, { dtype }: { dtype?: FloatType }) => {
      const sdxl = syntheticSizes.find((name) => name === model);
      const wan = syntheticWanSizes.find((name) => name === model);
      const qwen = syntheticQwenSizes.find((name) => name === model);
      if (sdxl !== undefined) await writeSyntheticSdxl(path, sdxl, dtype);
      else if (wan !== undefined) await writeSyntheticWan(path, wan, dtype);
      else if (qwen !== undefined) await writeSyntheticQwen(path, qwen, dtype);
      else throw new InvalidArgumentError(`model "${model}" must be one of ${sizes.join(', ')}`);
      process.stdout.write(`wrote ${path}\n`);
    });
  addConvertCommand(models);
  return models;
}

/** A diffusers folder says what it is; the original WAN is a folder without an index, or a file with a patch embedding. */
async function isWan(path: string): Promise<boolean> {
  if (path.endsWith('.safetensors')) {
    const { tensors } = await readSafetensors(path);
    return [...tensors.keys()].some((key) => /(^|\.)patch_embedding\.weight$/.test(key));
  }
  const index = await readFile(join(path, 'model_index.json'), 'utf8').catch(() => undefined);
  const entry = await stat(path).catch(() => undefined);
  return index === undefined ? (entry?.isDirectory() ?? false) : index.includes('"Wan');
}

const NAMES: Readonly<Record<Family, string>> = { sdxl: 'SDXL', wan: 'WAN 2.1' };
/** Spare keys that are spelled out. */
const MAX_UNUSED_SHOWN = 8;

function describe(path: string, inspection: SdxlInspection | WanInspection): string {
  const { layout, info, networks } = inspection;
  const rows = Object.entries(networks).map(
    ([name, { parameters, files }]) =>
      `  ${name.padEnd(16)} ${millions(parameters).padStart(9)} parameters  ${files.length} ${files.length === 1 ? 'file' : 'files'}`,
  );
  const { unused } = info;
  const rest = unused.length > MAX_UNUSED_SHOWN ? ` and ${unused.length - MAX_UNUSED_SHOWN} more` : '';
  return [
    `${path} is a whole ${nameOf(inspection)} checkpoint in ${layout === 'diffusers' ? "diffusers' layout" : 'the original layout'}.`,
    ...rows,
    `  ${'together'.padEnd(16)} ${millions(info.parameters).padStart(9)} parameters  ${(info.weightBytes / 1e9).toFixed(2)} GB, ${info.storage}`,
    `  native size ${info.nativeWidth}x${info.nativeHeight}, sizes a multiple of ${info.sizeMultiple}, prediction type ${info.predictionType}`,
    `  schedulers ${info.schedulers.join(', ')}`,
    ...framesLine(info),
    ...(unused.length > 0 ? [`  not used: ${unused.slice(0, MAX_UNUSED_SHOWN).join(', ')}${rest}`] : []),
    '',
  ].join('\n');
}

const VARIANTS: Readonly<Record<WanVariant, string>> = {
  text_to_video: 'text-to-video',
  vace: 'VACE',
  image_to_video: 'image-to-video',
};

function nameOf(inspection: SdxlInspection | WanInspection): string {
  const name = NAMES[inspection.info.family];
  return 'variant' in inspection ? `${name} ${VARIANTS[inspection.variant]}` : name;
}

/** What a model of WAN makes of known frames. */
function framesLine({ frames }: ModelInfo): readonly string[] {
  if (frames === undefined) return [];
  const needs = frames.needs.length > 0 ? `, needs ${frames.needs.join(' and ')}` : '';
  return [`  references ${frames.takes.join(', ')}${needs}, by ${frames.method}`];
}

function millions(count: number): string {
  return `${(count / 1e6).toFixed(1)} M`;
}
