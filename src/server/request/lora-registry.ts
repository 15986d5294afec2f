import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { InferenceError } from '../../errors.js';
import type { AnyFamily } from '../../pipelines/family.js';
import { type LoraHeader, readLoraHeader } from '../../pipelines/lora/lora-header.js';
import { nearestNames } from './nearest-names.js';

const SUFFIX = '.safetensors';
/** Smallest time between two looks at the folder, in ms. */
const LOOK_MS = 1_000;
/** A folder with more files is a wrong path rather than a collection. */
const MAX_FILES = 10_000;
const MAX_NEAREST = 3;

/** A LoRA file that was found. */
export interface KnownLora {
  readonly name: string;
  readonly path: string;
  /** Changes when the file is replaced. */
  readonly revision: string;
  readonly header?: LoraHeader;
  /** Reason why the file cannot be used. */
  readonly problem?: InferenceError;
}

export interface LoraRegistryOptions {
  /**
   * Folder of `.safetensors` files, subfolders included. A LoRA is named by its path below the folder without the
   * ending. Omitted: none.
   */
  readonly folder?: string | undefined;
  /** Files by name. They take precedence over the folder's. */
  readonly files?: ReadonlyMap<string, string>;
}

/** The LoRA files that requests may name: those of the configuration and those in the folder now. */
export class LoraRegistry {
  readonly #options: LoraRegistryOptions;
  #loras: ReadonlyMap<string, KnownLora> = new Map();
  #lookedAt = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(options: LoraRegistryOptions) {
    this.#options = options;
  }

  get all(): readonly KnownLora[] {
    return [...this.#loras.values()];
  }

  /** LoRAs for a family, and LoRAs whose family is unknown. */
  of(family: AnyFamily): readonly KnownLora[] {
    return this.all.filter(({ header }) => header === undefined || header.base === 'unknown' || isFor(header, family));
  }

  /**
   * @throws InferenceError LORA_NOT_FOUND with the nearest names; MODEL_UNSUPPORTED for a LoRA of another family; the
   * fault of its file
   */
  get(name: string, family: AnyFamily): KnownLora {
    const lora = this.#loras.get(name);
    if (lora === undefined) {
      const known = this.of(family).map((each) => each.name);
      const nearest = nearestNames(name, known, MAX_NEAREST);
      const hint = known.length === 0 ? 'this server has none for the model' : `the nearest are ${nearest.join(', ')}`;
      throw new InferenceError('LORA_NOT_FOUND', `LoRA "${name.slice(0, 128)}" is not known; ${hint}`);
    }
    if (lora.problem !== undefined) throw lora.problem;
    if (lora.header !== undefined && lora.header.base !== 'unknown' && !isFor(lora.header, family)) {
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `LoRA "${name}" is for ${lora.header.base}; the model is ${family.loraBase ?? family.title}`,
      );
    }
    return lora;
  }

  /** Looks at the files again unless it did so just now. */
  async refresh(): Promise<void> {
    if (performance.now() - this.#lookedAt < LOOK_MS) return;
    this.#looking ??= this.#look().finally(() => {
      this.#lookedAt = performance.now();
      this.#looking = undefined;
    });
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { folder, files = new Map() } = this.#options;
    const found = new Map([...(folder === undefined ? [] : await filesBelow(folder)), ...files]);
    const loras = new Map<string, KnownLora>();
    for (const [name, path] of found) loras.set(name, await this.#read(name, path));
    this.#loras = loras;
  }

  /** Unchanged files are not read again. */
  async #read(name: string, path: string): Promise<KnownLora> {
    const entry = await stat(path, { bigint: true }).catch(() => undefined);
    const revision = createHash('sha256').update(`${path} ${entry?.size} ${entry?.mtimeNs}`).digest('hex').slice(0, 16);
    const known = this.#loras.get(name);
    if (known?.revision === revision) return known;
    const lora = { name, path, revision };
    return readLoraHeader(path).then(
      (header) => ({ ...lora, header }),
      (error: unknown) => ({ ...lora, problem: InferenceError.from(error) }),
    );
  }
}

function isFor({ base }: LoraHeader, family: AnyFamily): boolean {
  return base === family.loraBase;
}

async function filesBelow(folder: string): Promise<readonly (readonly [name: string, path: string])[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => !entry.isDirectory() && entry.name.endsWith(SUFFIX))
    .slice(0, MAX_FILES)
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return [relative(folder, path).slice(0, -SUFFIX.length).split(sep).join('/'), path] as const;
    })
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
