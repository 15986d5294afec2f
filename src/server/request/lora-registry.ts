import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import type { AnyFamily } from '../../pipelines/family.js';
import type { LoraSummary } from '../../pipelines/lora/lora-summary.js';
import { entryOf, folderProblem, listLoraFolder } from './lora-folder.js';
import { withoutPaths } from './lora-paths.js';
import { LoraReader, loraThreadEntry } from './lora-reader.js';
import { nearestNames } from './nearest-names.js';

/** Smallest time between two looks at the folder, in ms. */
const LOOK_MS = 1_000;
/** A request waits so long for files that are new; what is read later is there for the next one. */
const WAIT_MS = 5_000;
const MAX_NEAREST = 3;

/** Time after which a file is read again that could not be read in time or memory, in ms. */
const RETRY_MS = 60_000;

/** A LoRA file that was found. */
export interface KnownLora {
  readonly name: string;
  readonly path: string;
  /** Changes when the file is replaced. */
  readonly revision: string;
  readonly summary?: LoraSummary;
  /** Reason why the file cannot be used. */
  readonly problem?: InferenceError;
  /** When an unchanged file is read again, on the clock of `performance`. Omitted: never. */
  readonly retryAt?: number;
}

export interface LoraRegistryOptions {
  /**
   * Folder of `.safetensors` files, subfolders included. A LoRA is named by its path below the folder without the
   * ending. Omitted: none.
   */
  readonly folder?: string | undefined;
  /** Files by name. They take precedence over the folder's. */
  readonly files?: ReadonlyMap<string, string>;
  /** The program of the thread that reads files. Omitted: the one beside this module. */
  readonly threadEntry?: URL | undefined;
  /** Gets the path of each file that cannot be used. Callers get its name. Omitted: nobody does. */
  readonly log?: Logger | undefined;
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
    return this.all.filter(
      ({ summary }) => summary === undefined || summary.base === 'unknown' || isFor(summary, family),
    );
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
    if (lora.summary !== undefined && lora.summary.base !== 'unknown' && !isFor(lora.summary, family)) {
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `LoRA "${name}" is for ${lora.summary.base}; the model is ${family.loraBase ?? family.title}`,
      );
    }
    return lora;
  }

  /** The reason why the folder cannot be read; undefined where it can, and where there is none. */
  async folderProblem(): Promise<string | undefined> {
    const { folder } = this.#options;
    return folder === undefined ? undefined : folderProblem(folder);
  }

  /** Looks at the files again unless it did so just now. Returns after WAIT_MS at most. */
  async refresh(): Promise<void> {
    if (performance.now() - this.#lookedAt < LOOK_MS) return;
    this.#looking ??= this.#look().finally(() => {
      this.#lookedAt = performance.now();
      this.#looking = undefined;
    });
    const waited = new AbortController();
    await Promise.race([this.#looking, sleep(WAIT_MS, undefined, { signal: waited.signal }).catch(() => undefined)]);
    waited.abort();
  }

  async #look(): Promise<void> {
    const { folder, files = new Map(), threadEntry = loraThreadEntry } = this.#options;
    const found = new Map([...(folder === undefined ? [] : await listLoraFolder(folder)), ...files]);
    const loras = new Map([...this.#loras].filter(([name]) => found.has(name)));
    this.#loras = loras;
    const reader = new LoraReader(threadEntry);
    try {
      for (const [name, path] of found) loras.set(name, await this.#read(name, path, reader));
      this.#loras = new Map([...found.keys()].flatMap((name) => [...named(loras, name)]));
    } finally {
      await reader.close();
    }
  }

  /** Unchanged files are not read again. */
  async #read(name: string, path: string, reader: LoraReader): Promise<KnownLora> {
    const entry = await entryOf(path);
    const identity = `${path} ${entry?.ino} ${entry?.size} ${entry?.mtimeNs}`;
    const revision = createHash('sha256').update(identity).digest('hex').slice(0, 16);
    const known = this.#loras.get(name);
    if (known?.revision === revision && (known.retryAt ?? Number.POSITIVE_INFINITY) > performance.now()) return known;
    const lora = { name, path, revision };
    if (entry?.isFile() === false) {
      return {
        ...lora,
        problem: this.#problem(lora, new InferenceError('CHECKPOINT_INVALID', `${path} is not a file`)),
      };
    }
    const reading = await reader.read(path);
    if ('summary' in reading) return { ...lora, summary: reading.summary };
    const { problem, isFinal } = reading;
    return {
      ...lora,
      problem: this.#problem(lora, problem),
      ...(!isFinal && { retryAt: performance.now() + RETRY_MS }),
    };
  }

  #problem(lora: Pick<KnownLora, 'name' | 'path'>, error: InferenceError): InferenceError {
    this.#options.log?.warn({ lora: lora.name, path: lora.path, problem: error.message }, 'LoRA cannot be used');
    return withoutPaths(error, [lora]);
  }
}

function named(loras: ReadonlyMap<string, KnownLora>, name: string): readonly (readonly [string, KnownLora])[] {
  const lora = loras.get(name);
  return lora === undefined ? [] : [[name, lora]];
}

function isFor({ base }: LoraSummary, family: AnyFamily): boolean {
  return base === family.loraBase;
}
