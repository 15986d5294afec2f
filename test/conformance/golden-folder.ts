import { cp, mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';
import { readSafetensors, type SafetensorsFile } from '../../src/weights/safetensors.js';
import { assertFloatType } from '../support/float-type.js';

/** Expected outputs, read into memory as numbers. */
export class Expected {
  readonly #file: SafetensorsFile;
  readonly #bytes: Buffer;

  private constructor(file: SafetensorsFile, bytes: Buffer) {
    this.#file = file;
    this.#bytes = bytes;
  }

  static async read(path: string): Promise<Expected> {
    const file = await readSafetensors(path);
    return new Expected(file, await readFile(file.file));
  }

  /** Elements of a tensor, or undefined where the file has none of that name. */
  find(name: string): Float32Array | Uint8Array | undefined {
    const record = this.#file.tensors.get(name);
    if (record === undefined) return undefined;
    const bytes = new Uint8Array(this.#bytes.subarray(record.offset, record.offset + record.length));
    if (record.dtype === 'U8') return bytes;
    if (record.dtype === 'F32') return new Float32Array(bytes.buffer);
    throw new Error(`${name} is ${record.dtype}, expected outputs are F32 or U8`);
  }

  get names(): readonly string[] {
    return [...this.#file.tensors.keys()];
  }

  shape(name: string): readonly number[] {
    const record = this.#file.tensors.get(name);
    if (record === undefined) throw new Error(`the expected outputs have no ${name}`);
    return record.shape;
  }

  /** Elements of a tensor that is F32. */
  floats(name: string): Float32Array {
    const values = this.get(name);
    if (values instanceof Float32Array) return values;
    throw new Error(`${name} is not F32`);
  }

  get(name: string): Float32Array | Uint8Array {
    const values = this.find(name);
    if (values === undefined) throw new Error(`the expected outputs have no ${name}`);
    return values;
  }
}

export interface ManifestEntry {
  readonly dtype: string;
  readonly hash_prefix: string;
  readonly tensors: readonly (readonly [string, readonly number[]])[];
}

/** Rebuilds a model from `manifest.json` and the folder of its other files: `model-configs/`, or `model/` for transformers' layout. */
export async function rebuildModel(goldens: string, folder: string, configs = 'model-configs'): Promise<string> {
  await mkdir(folder, { recursive: true });
  await cp(join(goldens, configs), folder, { recursive: true });
  const manifest = JSON.parse(await readFile(join(goldens, 'manifest.json'), 'utf8')) as Record<string, ManifestEntry>;
  for (const [file, { dtype, hash_prefix: hashPrefix, tensors }] of Object.entries(manifest)) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeHashSafetensors(join(folder, file), { dtype: assertFloatType(dtype), hashPrefix, tensors });
  }
  return folder;
}

/** Rebuilds a model that is one file from a `manifest.json` of one entry. */
export async function rebuildFile(goldens: string, path: string): Promise<string> {
  const {
    dtype,
    hash_prefix: hashPrefix,
    tensors,
  } = JSON.parse(await readFile(join(goldens, 'manifest.json'), 'utf8')) as ManifestEntry;
  await writeHashSafetensors(path, { dtype: assertFloatType(dtype), hashPrefix, tensors });
  return path;
}

/** Single files hold no tokenizer: the goldens' own, in the folder or beside it, else the tiny model's, which is the same. */
export async function clipTokenizerNear(goldens: string): Promise<string> {
  const assets = fileURLToPath(new URL('../../assets/tiny-sdxl/tokenizer', import.meta.url));
  const built = fileURLToPath(new URL('../../../assets/tiny-sdxl/tokenizer', import.meta.url));
  const places = [join(goldens, 'tokenizer'), join(goldens, '..', 'tokenizers', 'clip'), assets, built];
  for (const place of places) if ((await stat(place).catch(() => undefined)) !== undefined) return place;
  throw new Error(`no tokenizer for ${goldens}`);
}

/** `["hash", name, shape, …]` of a case. */
export function hashInput(spec: readonly unknown[]): Float32Array {
  const [kind, name, shape] = spec;
  if (kind !== 'hash' || typeof name !== 'string' || !Array.isArray(shape)) {
    throw new Error(`${JSON.stringify(spec)} is not a hash input`);
  }
  return hashTensor(name, shape as number[]);
}

/** Files of cases in a folder: `cases.json`, `case.json`, `…_cases.json`. */
export async function caseFiles(folder: string): Promise<readonly string[]> {
  return (await readdir(folder)).filter((name) => /^(.*_)?cases?\.json$/.test(name)).sort();
}

/** JSON as Python writes it: with Infinity and NaN, which JSON itself has not. */
export async function readCases(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8');
  const numbers: Readonly<Record<string, string>> = { Infinity: '1e999', '-Infinity': '-1e999', NaN: 'null' };
  return JSON.parse(text.replace(/"(?:\\.|[^"\\])*"|-?Infinity|NaN/g, (token) => numbers[token] ?? token));
}
