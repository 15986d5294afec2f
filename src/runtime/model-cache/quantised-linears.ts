import { createHash } from 'node:crypto';
import { type FileHandle, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { z } from 'zod';
import type { QuantisedLinear } from '../../graph/weights.js';
import { floatsFrom } from '../../weights/half-floats.js';
import { quantiseRows } from '../../weights/quantise-rows.js';
import { readChunks } from '../../weights/read-chunks.js';
import type { FloatType, TensorRecord } from '../../weights/safetensors.js';
import { finishEntry, readEntry, WEIGHTS_FILE } from './cache-entry.js';
import { CacheFolder, type CacheLimits } from './cache-folder.js';
import { identityOf } from './cache-key.js';

/** Raise it when entries are written differently. */
const FORMAT = 1;
/** Where a matrix and its scales lie in the weights file, by the key of the weight. */
const INDEX_FILE = 'linears.json';
const indexSchema = z.record(z.string(), z.object({ matrix: z.number(), scales: z.number() }));
/** The runtime maps initializers; kernels load them by 64 bytes. */
const ALIGNMENT = 64;

/** A weight of a linear layer, [outputs, inputs], as the user's file has it. */
export type LinearRecord = TensorRecord & { readonly dtype: FloatType };

export interface QuantisedLinearsOptions extends CacheLimits {
  /** Gets a line about each network: read from the cache, written to it, or why it is computed in float32. */
  readonly log: (line: string) => void;
}

/** Keeps the weights of linear layers on the disk in 8 bits, an entry for each network, beside those of the model cache. */
export class QuantisedLinears {
  readonly #folder: CacheFolder;
  readonly #log: (line: string) => void;

  constructor({ log, ...limits }: QuantisedLinearsOptions) {
    this.#folder = new CacheFolder(limits);
    this.#log = log;
  }

  /** @returns the layers by key; none where they cannot be kept, for whatever reason */
  async of(network: string, linears: ReadonlyMap<string, LinearRecord>): Promise<ReadonlyMap<string, QuantisedLinear>> {
    try {
      const key = await keyOf(linears);
      const folder = this.#folder.pathOf(key);
      const found = await readEntry(folder, key, INDEX_FILE).catch(async () => {
        await this.#folder.remove(folder);
        return undefined;
      });
      const index = found?.model ?? (await this.#write(network, key, linears));
      return layersOf(JSON.parse(Buffer.from(index).toString()), join(folder, WEIGHTS_FILE), linears);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#log(`int8: the linear layers of ${network} compute in float32, ${reason.split('\n')[0]}`);
      return new Map();
    }
  }

  async #write(network: string, key: string, linears: ReadonlyMap<string, LinearRecord>): Promise<Uint8Array> {
    let bytes = 0;
    for (const { shape } of linears.values()) bytes += sizesOf(shape).end;
    const claimed = await this.#folder.claim(key, { entryBytes: bytes, diskBytes: bytes });
    if ('reason' in claimed) throw new Error(claimed.reason);
    const { part } = claimed;
    try {
      const file = await open(join(part, WEIGHTS_FILE), 'w');
      const index: Record<string, { matrix: number; scales: number }> = {};
      try {
        let at = 0;
        for (const [name, record] of linears) {
          const { scales, end } = sizesOf(record.shape);
          await writeLinear(file, at, record);
          index[name] = { matrix: at, scales: at + scales };
          at += end;
          await nextTurn();
        }
      } finally {
        await file.close();
      }
      const json = JSON.stringify(index);
      await writeFile(join(part, INDEX_FILE), json);
      await this.#folder.release(part);
      await finishEntry(part, this.#folder.pathOf(key), key, INDEX_FILE);
      this.#log(`int8: ${linears.size} linear layers of ${network} were written`);
      return Buffer.from(json);
    } finally {
      await this.#folder.remove(part);
    }
  }
}

async function keyOf(linears: ReadonlyMap<string, LinearRecord>): Promise<string> {
  const files = [...new Set([...linears.values()].map(({ file }) => file))];
  const places = [...linears].map(([key, { file, offset, shape, dtype }]) => [
    key,
    files.indexOf(file),
    offset,
    shape,
    dtype,
  ]);
  const facts = { kind: 'int8', format: FORMAT, places, files: await Promise.all(files.map(identityOf)) };
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex');
}

async function writeLinear(file: FileHandle, at: number, record: LinearRecord): Promise<void> {
  const { shape, length, dtype } = record;
  for await (const bytes of readChunks(record, length)) {
    const { transposed, scales } = quantiseRows(floatsFrom(dtype, bytes), shape[0] ?? 0);
    if (!scales.every(Number.isFinite)) throw new Error(`${record.name} has weights that are not finite`);
    await file.write(transposed, 0, transposed.byteLength, at);
    await file.write(scales, 0, scales.byteLength, at + sizesOf(shape).scales);
  }
}

/** Offset of the scales behind the matrix, and where the next one begins. */
function sizesOf([outputs = 0, inputs = 0]: readonly number[]): { readonly scales: number; readonly end: number } {
  const scales = aligned(outputs * inputs);
  return { scales, end: scales + aligned(outputs * Float32Array.BYTES_PER_ELEMENT) };
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function layersOf(
  json: unknown,
  file: string,
  linears: ReadonlyMap<string, LinearRecord>,
): ReadonlyMap<string, QuantisedLinear> {
  const index = indexSchema.parse(json);
  return new Map(
    [...linears].map(
      ([
        key,
        {
          shape: [outputs = 0, inputs = 0],
        },
      ]) => {
        const place = index[key];
        if (place === undefined) throw new Error(`the entry has no ${key}`);
        const matrix = { file, offset: place.matrix, length: outputs * inputs };
        return [key, { matrix, scales: { file, offset: place.scales, length: 4 * outputs } }];
      },
    ),
  );
}
