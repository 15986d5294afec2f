import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import type { AnyFamily } from '../../pipelines/family.js';
import { fileVersion } from '../../std/file-version.js';
import { entryOf, folderProblem, listAddOnFolder } from './add-on-folder.js';
import type { AddOnKind, AddOnName, AddOnSummaries } from './add-on-kinds.js';
import { AddOnReader, addOnThreadEntry } from './add-on-reader.js';
import { nearestNames } from './nearest-names.js';
import { withoutPaths } from './without-paths.js';

/** Smallest time between two looks at the folder, in ms. */
const LOOK_MS = 1_000;
/** A request waits so long for files that are new; what is read later is there for the next one. */
const WAIT_MS = 5_000;
const MAX_NEAREST = 3;

/** Time after which a file is read again that could not be read in time or memory, in ms. */
const RETRY_MS = 60_000;

/** A file beside a checkpoint that was found. */
export interface KnownAddOn<Summary> {
  readonly name: string;
  readonly path: string;
  /** Changes when the file is replaced. */
  readonly revision: string;
  readonly summary?: Summary;
  /** Reason why the file cannot be used. */
  readonly problem?: InferenceError;
  /** When an unchanged file is read again, on the clock of `performance`. Omitted: never. */
  readonly retryAt?: number;
}

export interface AddOnRegistryOptions {
  /**
   * Folder of the files, subfolders included. A file is named by its path below the folder without the ending. Omitted: none.
   */
  readonly folder?: string | undefined;
  /** Files by name. They take precedence over the folder's. */
  readonly files?: ReadonlyMap<string, string>;
  /** The program of the thread that reads files. Omitted: the one beside this module. */
  readonly threadEntry?: URL | undefined;
  /** Gets the path of each file that cannot be used. Callers get its name. Omitted: nobody does. */
  readonly log?: Logger | undefined;
}

/** The files of one kind that requests may name: those of the configuration and those in the folder now. */
export class AddOnRegistry<Name extends AddOnName> {
  readonly kind: AddOnKind<Name>;
  readonly #options: AddOnRegistryOptions;
  #known: ReadonlyMap<string, KnownAddOn<AddOnSummaries[Name]>> = new Map();
  #lookedAt = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(kind: AddOnKind<Name>, options: AddOnRegistryOptions) {
    this.kind = kind;
    this.#options = options;
  }

  /** False where the configuration names neither a folder nor a file. */
  get isConfigured(): boolean {
    const { folder, files } = this.#options;
    return folder !== undefined || (files?.size ?? 0) > 0;
  }

  /** The files of the last look: another object after each. It fills while the first look lasts. */
  get known(): ReadonlyMap<string, KnownAddOn<AddOnSummaries[Name]>> {
    return this.#known;
  }

  get all(): readonly KnownAddOn<AddOnSummaries[Name]>[] {
    return [...this.#known.values()];
  }

  /** Files for a family, and files whose family is unknown. None for a family that takes none of this kind. */
  of(family: AnyFamily): readonly KnownAddOn<AddOnSummaries[Name]>[] {
    const base = this.kind.baseOf(family);
    if (base === undefined) return [];
    return this.all.filter(({ summary }) => summary === undefined || ['unknown', base].includes(summary.base));
  }

  /**
   * @throws InferenceError the kind's NOT_FOUND with the nearest names; MODEL_UNSUPPORTED for a file of another family; the fault of
   * the file
   */
  get(name: string, family: AnyFamily): KnownAddOn<AddOnSummaries[Name]> {
    const { title, notFound, baseOf } = this.kind;
    const addOn = this.#known.get(name);
    if (addOn === undefined) {
      const known = this.of(family).map((each) => each.name);
      const nearest = nearestNames(name, known, MAX_NEAREST);
      const hint = known.length === 0 ? 'this server has none for the model' : `the nearest are ${nearest.join(', ')}`;
      throw new InferenceError(notFound, `${title} "${name.slice(0, 128)}" is not known; ${hint}`);
    }
    if (addOn.problem !== undefined) throw addOn.problem;
    const base = baseOf(family) ?? family.title;
    if (addOn.summary !== undefined && !['unknown', base].includes(addOn.summary.base)) {
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `${title} "${name}" is for ${addOn.summary.base}; the model is ${base}`,
      );
    }
    return addOn;
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
    const { folder, files = new Map(), threadEntry = addOnThreadEntry } = this.#options;
    const listed = folder === undefined ? [] : await listAddOnFolder(folder, this.kind.endings);
    const { nameOf = (path: string) => path } = this.kind;
    const found = new Map([...[...listed].map(([name, path]) => [nameOf(name), path] as const), ...files]);
    const known = new Map([...this.#known].filter(([name]) => found.has(name)));
    this.#known = known;
    const reader = new AddOnReader(threadEntry);
    try {
      for (const [name, path] of found) known.set(name, await this.#read(name, path, reader));
      this.#known = new Map([...found.keys()].flatMap((name) => [...named(known, name)]));
    } finally {
      await reader.close();
    }
  }

  /** Unchanged files are not read again. */
  async #read(name: string, path: string, reader: AddOnReader): Promise<KnownAddOn<AddOnSummaries[Name]>> {
    const second = this.kind.partOf?.(path);
    const files = second === undefined ? [path] : [path, second];
    const identity = `${path} ${(await Promise.all(files.map(fileVersion))).join(' ')}`;
    const revision = createHash('sha256').update(identity).digest('hex').slice(0, 16);
    const known = this.#known.get(name);
    if (known?.revision === revision && (known.retryAt ?? Number.POSITIVE_INFINITY) > performance.now()) return known;
    const addOn = { name, path, revision };
    if ((await entryOf(path))?.isFile() === false) {
      return {
        ...addOn,
        problem: this.#problem(addOn, new InferenceError('CHECKPOINT_INVALID', `${path} is not a file`)),
      };
    }
    const reading = await reader.read(this.kind.name, path);
    if ('summary' in reading) return { ...addOn, summary: reading.summary };
    const { problem, isFinal } = reading;
    return {
      ...addOn,
      problem: this.#problem(addOn, problem),
      ...(!isFinal && { retryAt: performance.now() + RETRY_MS }),
    };
  }

  #problem({ name, path }: Pick<KnownAddOn<unknown>, 'name' | 'path'>, error: InferenceError): InferenceError {
    const { name: kind, title } = this.kind;
    this.#options.log?.warn({ [kind]: name, path, problem: error.message }, `${title} cannot be used`);
    return withoutPaths(error, [{ title, name, path }]);
  }
}

function named<Value>(known: ReadonlyMap<string, Value>, name: string): readonly (readonly [string, Value])[] {
  const value = known.get(name);
  return value === undefined ? [] : [[name, value]];
}
