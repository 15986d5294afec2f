import type { Config } from '../../config/server-config.js';
import type { Logger } from '../../log.js';
import { type AddOnName, controlNetKind, embeddingKind, loraKind, upscalerKind } from './add-on-kinds.js';
import { AddOnRegistry } from './add-on-registry.js';

/** The files beside checkpoints that requests may name, by kind. */
export type AddOns = { readonly [Name in AddOnName]: AddOnRegistry<Name> };

interface AddOnOptions {
  /** Omitted: nothing is logged. */
  readonly log?: Logger | undefined;
  /** The program of the thread that reads files. Omitted: the build's. */
  readonly threadEntry?: URL | undefined;
}

type Folders = Pick<Config, 'LORA_DIR' | 'LORA_FILES' | 'EMBEDDING_DIR' | 'CONTROLNET_DIR' | 'UPSCALER_DIR'>;

/** Opens the registries that a configuration names. */
export function openAddOns(config: Partial<Folders>, options: AddOnOptions = {}): AddOns {
  return {
    lora: new AddOnRegistry(loraKind, {
      ...options,
      folder: config.LORA_DIR,
      files: namedFiles(config.LORA_FILES),
    }),
    embedding: new AddOnRegistry(embeddingKind, { ...options, folder: config.EMBEDDING_DIR }),
    controlnet: new AddOnRegistry(controlNetKind, { ...options, folder: config.CONTROLNET_DIR }),
    upscaler: new AddOnRegistry(upscalerKind, { ...options, folder: config.UPSCALER_DIR }),
  };
}

/** Logs folders that cannot be read: their files are there as soon as they can be. */
export async function logFolderProblems(addOns: AddOns, log: Logger): Promise<void> {
  for (const registry of Object.values(addOns)) {
    const problem = await registry.folderProblem();
    const { variable, title } = registry.kind;
    if (problem !== undefined) log.error(`${variable} ${problem}; there are no ${title}s until it can be`);
  }
}

/** Parses NAME=PATH entries. */
function namedFiles(entries: readonly string[] = []): ReadonlyMap<string, string> {
  return new Map(
    entries.map((entry) => {
      const at = entry.indexOf('=');
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}
