import { Command } from 'commander';
import { z } from 'zod';
import { readVariables } from '../../config/read-variables.js';
import { InferenceError } from '../../errors.js';
import { builtInFamilies } from '../../pipelines/families.js';
import { type AnyFamily, familyOfCheckpoint, flagOf, type Inspection } from '../../pipelines/family.js';
import type { ModelInfo } from '../../pipelines/pipeline.js';
import { formatBytes } from '../../std/format-bytes.js';
import { formatParameters } from '../../std/format-parameters.js';
import { addFamilyOptions, familyVariables } from '../options/family-options.js';
import { describeControlNet, inspectControlNet } from './inspect-controlnet.js';
import { describeEmbedding, inspectEmbedding } from './inspect-embedding.js';
import { describeLora, inspectLora } from './inspect-lora.js';
import { describeQwen, inspectQwen } from './inspect-qwen.js';
import { describeUpscaler, inspectUpscaler } from './inspect-upscaler.js';

/** Number of unused keys that are listed. */
const MAX_UNUSED_SHOWN = 8;

interface InspectedAddOn {
  readonly inspection: object;
  readonly text: string;
}

/** Finds out what a file beside a checkpoint is; undefined for anything else. */
type InspectAddOn = (path: string) => Promise<InspectedAddOn | undefined>;

/** Any lone table of numbers may be an embedding, so these come last. */
const ADD_ONS: readonly InspectAddOn[] = [
  addOn(inspectLora, describeLora),
  addOn(inspectControlNet, describeControlNet),
  addOn(inspectUpscaler, describeUpscaler),
  addOn(inspectQwen, describeQwen),
  addOn(inspectEmbedding, describeEmbedding),
];

function addOn<T extends object>(
  inspect: (path: string) => Promise<T | undefined>,
  describe: (path: string, inspection: T) => string,
): InspectAddOn {
  return async (path) => {
    const inspection = await inspect(path);
    return inspection && { inspection, text: describe(path, inspection) };
  };
}

export function createInspectCommand(): Command {
  const inspect = new Command('inspect')
    .description(
      'show what a checkpoint, a language model, a LoRA, an embedding, a ControlNet or an upscaler is and whether it is whole, without loading it',
    )
    .argument(
      '<path>',
      "a checkpoint: a diffusers-layout folder, or the original code's layout (one .safetensors file, or a folder for WAN); a Qwen2 folder or GGUF file; or the file of a LoRA, an embedding, a ControlNet or an upscaler",
    )
    .option('--json', 'machine-readable')
    .action(async (path: string, { json, ...options }: { json?: boolean }) => {
      const print = (result: object, text: () => string) =>
        process.stdout.write(json ? `${JSON.stringify(result, null, 2)}\n` : text());
      for (const inspectAddOn of ADD_ONS) {
        const found = await inspectAddOn(path);
        if (found === undefined) continue;
        print(found.inspection, () => found.text);
        return;
      }
      const inspection = await inspectCheckpoint(path, options);
      print(inspection, () => describe(path, inspection));
    });
  addFamilyOptions(inspect, builtInFamilies, false);
  return inspect;
}

async function inspectCheckpoint(path: string, options: Readonly<Record<string, unknown>>): Promise<Inspection> {
  const family = await familyOfCheckpoint(builtInFamilies, path);
  assertNoneOfOthers(family, options);
  const [pathVariable = ''] = Object.keys(family.options);
  const variables = readVariables(z.object(family.variables), {
    ...familyVariables(options, [family]),
    [pathVariable]: path,
  });
  const source = family.sourceFrom(variables);
  if (source === undefined) throw new Error(`${family.name} makes no source of a path`);
  return family.inspect(source);
}

/** @throws InferenceError INVALID_REQUEST for options of another family: they would be ignored */
function assertNoneOfOthers(family: AnyFamily, options: Readonly<Record<string, unknown>>): void {
  for (const other of builtInFamilies) {
    if (other === family) continue;
    const [foreign] = Object.keys(familyVariables(options, [other]));
    if (foreign === undefined) continue;
    const flags = Object.values(family.options).slice(1).map(flagOf).join(', ');
    throw new InferenceError(
      'INVALID_REQUEST',
      `${flagOf(other.options[foreign])} is for ${other.title}, the checkpoint is of ${family.title}; use ${flags}`,
    );
  }
}

function describe(path: string, { title, layout, info, networks }: Inspection): string {
  const rows = Object.entries(networks).map(
    ([name, { parameters, files }]) =>
      `  ${name.padEnd(16)} ${formatParameters(parameters).padStart(20)}  ${files.length} ${files.length === 1 ? 'file' : 'files'}`,
  );
  const { unused } = info;
  const rest = unused.length > MAX_UNUSED_SHOWN ? ` and ${unused.length - MAX_UNUSED_SHOWN} more` : '';
  return [
    `${path} is a whole ${title} checkpoint in ${layout === 'diffusers' ? "diffusers' layout" : 'the original layout'}.`,
    ...rows,
    `  ${'together'.padEnd(16)} ${formatParameters(info.parameters).padStart(20)}  ${formatBytes(info.weightBytes, 2)}, ${info.storage}`,
    `  native size ${info.nativeWidth}x${info.nativeHeight}, sizes a multiple of ${info.sizeMultiple}, prediction type ${info.predictionType}`,
    ...(info.clip ? [`  videos of ${info.clip.frames} frames at ${info.clip.fps} per second`] : []),
    `  schedulers ${info.schedulers.join(', ')}`,
    ...referencesLine(info),
    ...(info.frames?.takesControlVideo ? ['  takes a control video'] : []),
    ...(info.layers === undefined ? [] : [`  ${info.layers} blocks for skip-layer guidance`]),
    ...(unused.length > 0 ? [`  not used: ${unused.slice(0, MAX_UNUSED_SHOWN).join(', ')}${rest}`] : []),
    '',
  ].join('\n');
}

/** The references that a video model takes, or a model with an IP-Adapter. */
function referencesLine({ frames, takesImagePrompts = false }: ModelInfo): readonly string[] {
  if (takesImagePrompts) return ['  references style, character, by ip_adapter'];
  if (frames === undefined) return [];
  const needs = frames.needs.length > 0 ? `, needs ${frames.needs.join(' and ')}` : '';
  return [`  references ${frames.takes.join(', ')}${needs}, by ${frames.method}`];
}
