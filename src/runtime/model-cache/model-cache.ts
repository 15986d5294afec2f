import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { NetworkSession, SessionCache, SessionPlan } from '../network-session.js';
import { saysOutOfMemory } from '../out-of-memory.js';
import { type CacheEntry, finishEntry, MODEL_FILE, readEntry, WEIGHTS_FILE } from './cache-entry.js';
import { CacheFolder, type CacheLimits } from './cache-folder.js';
import { cacheKey } from './cache-key.js';

const FOLDER_ENTRY = 'session.model_external_initializers_file_folder_path';
const NO_PACKING = { 'session.disable_prepacking': '1' };
/**
 * Constants of more bytes lie in the weights file: only those does the runtime align there, and a kernel that is given packed weights
 * at an odd address ends the process.
 */
const LARGEST_INLINE_BYTES = 2 ** 20;
/** Bytes of the longest vector that a kernel loads at once. */
const ALIGNMENT = 64;
/** A buffer of packed weights as the saved graph has it: `offset;length;checksum`, after its name or another one. */
const PACKED_BUFFER = /\|(\d+);\d+;\d+/g;

type OpenPlan = Parameters<SessionCache['open']>[2];
type CachedGraph = Parameters<SessionCache['open']>[1];

export interface ModelCacheOptions extends CacheLimits {
  /** Gets a line about each session: opened from the cache, written to it, or why it was not. */
  readonly log: (line: string) => void;
}

/**
 * Keeps graphs of the CPU provider on the disk as the runtime optimised them, with folded and packed weights. Loading one maps its weights
 * instead of casting and packing them. Where the cache is of no use, for whatever reason, a session is opened as without it.
 */
export class ModelCache implements SessionCache {
  readonly #folder: CacheFolder;
  readonly #log: (line: string) => void;

  constructor({ log, ...limits }: ModelCacheOptions) {
    this.#folder = new CacheFolder(limits);
    this.#log = log;
  }

  async open(plan: SessionPlan, graph: CachedGraph, openPlan: OpenPlan): Promise<NetworkSession> {
    const found = await this.#entryOf(plan, graph, openPlan);
    if ('reason' in found) {
      this.#log(`model cache: ${graph.name} is opened without it, ${found.reason}`);
      return openPlan(plan);
    }
    try {
      return await openPlan(optimizedPlan(plan, found.entry));
    } catch (error) {
      // The caller frees memory and tries again.
      if (saysOutOfMemory(messageOf(error))) throw error;
      await this.#folder.remove(found.entry.folder);
      this.#log(`model cache: the entry of ${graph.name} does not open and was removed, ${messageOf(error)}`);
      return openPlan(plan);
    }
  }

  async #entryOf(
    plan: SessionPlan,
    graph: CachedGraph,
    openPlan: OpenPlan,
  ): Promise<{ readonly entry: CacheEntry } | { readonly reason: string }> {
    try {
      const key = await cacheKey(plan, graph.files);
      const entry = (await this.#read(key, graph.name)) ?? (await this.#write(key, plan, graph, openPlan));
      if (!('reason' in entry)) this.#log(`model cache: ${graph.name} is opened from ${key}`);
      return 'reason' in entry ? entry : { entry };
    } catch (error) {
      return { reason: messageOf(error) };
    }
  }

  /** The entry, if it is there and whole. A damaged one is removed. */
  async #read(key: string, name: string): Promise<CacheEntry | undefined> {
    const folder = this.#folder.pathOf(key);
    try {
      return await readEntry(folder, key);
    } catch (error) {
      this.#log(`model cache: the entry ${key} of ${name} is written anew, ${messageOf(error)}`);
      await this.#folder.remove(folder);
      return undefined;
    }
  }

  async #write(
    key: string,
    plan: SessionPlan,
    { name, externalElements }: CachedGraph,
    openPlan: OpenPlan,
  ): Promise<CacheEntry | { readonly reason: string }> {
    const isPacked = plan.configEntries['session.disable_prepacking'] === undefined;
    // Each weight in float32; a packed one as it was before, too: the runtime compares the two while it loads them.
    const foldedBytes = externalElements * Float32Array.BYTES_PER_ELEMENT;
    const entryBytes = foldedBytes * (isPacked ? 2 : 1);
    const diskBytes = isPacked ? foldedBytes + entryBytes : entryBytes;
    const claimed = await this.#folder.claim(key, { entryBytes, diskBytes });
    if ('reason' in claimed) return claimed;
    const { part } = claimed;
    const startedAt = performance.now();
    try {
      if (isPacked) await savePacked(plan, part, openPlan);
      else await saveFolded(plan, part, openPlan);
      await this.#folder.release(part);
      await finishEntry(part, this.#folder.pathOf(key), key);
    } finally {
      await this.#folder.remove(part);
    }
    this.#log(`model cache: ${name} was written in ${Math.round(performance.now() - startedAt)} ms`);
    return (await readEntry(this.#folder.pathOf(key), key)) ?? { reason: 'its entry was removed' };
  }
}

/** The same session over an entry's graph and weights. */
function optimizedPlan(plan: SessionPlan, { folder, model }: CacheEntry): SessionPlan {
  return { ...plan, model, isOptimized: true, configEntries: { ...plan.configEntries, [FOLDER_ENTRY]: folder } };
}

/** Writes the graph, optimised, with folded weights. */
async function saveFolded(plan: SessionPlan, folder: string, openPlan: OpenPlan): Promise<void> {
  await save({ ...plan, configEntries: { ...plan.configEntries, ...NO_PACKING } }, folder, openPlan);
}

/**
 * Writes the same with packed weights. Folding and packing in one session would hold all weights in both forms; here the folded ones
 * are mapped from a file while they are packed, so that it takes no more memory than a session that is loaded without a cache.
 */
async function savePacked(plan: SessionPlan, folder: string, openPlan: OpenPlan): Promise<void> {
  const folded = join(folder, 'folded');
  await mkdir(folded);
  await saveFolded(plan, folded, openPlan);
  const optimized = optimizedPlan(plan, { folder: folded, model: await readFile(join(folded, MODEL_FILE)) });
  const configEntries = { ...optimized.configEntries, 'session.save_external_prepacked_constant_initializers': '1' };
  await save({ ...optimized, configEntries }, folder, openPlan);
  await rm(folded, { recursive: true });
  const saved = (await readFile(join(folder, MODEL_FILE))).toString('latin1');
  for (const [buffer, offset] of saved.matchAll(PACKED_BUFFER)) {
    if (Number(offset) % ALIGNMENT !== 0)
      throw new Error(`the runtime wrote packed weights to an odd place, ${buffer}`);
  }
}

/** https://github.com/microsoft/onnxruntime/blob/v1.30.0/include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h */
async function save(plan: SessionPlan, folder: string, openPlan: OpenPlan): Promise<void> {
  const configEntries = {
    ...plan.configEntries,
    'session.optimized_model_external_initializers_file_name': WEIGHTS_FILE,
    'session.optimized_model_external_initializers_min_size_in_bytes': String(LARGEST_INLINE_BYTES + 1),
  };
  const session = await openPlan({ ...plan, configEntries, saveTo: join(folder, MODEL_FILE) });
  await session.release();
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
}
