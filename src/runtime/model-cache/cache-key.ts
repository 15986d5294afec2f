import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, cpus, platform } from 'node:os';
import type { SessionPlan } from '../network-session.js';
import { digestFile } from './file-digest.js';

/** Raise it when entries are written differently. */
const FORMAT = 1;

/**
 * Name of the cache entry of a session: a hash of all that decides what the runtime makes of a graph. These are the graph's bytes, the
 * files that its weights are in, the runtime's version, the processor, whose features choose the layout of weights, and what the
 * session is asked for. The number of threads changes nothing that is stored.
 */
export async function cacheKey(
  { model, provider, configEntries }: SessionPlan,
  files: readonly string[],
): Promise<string> {
  const { 'session.model_external_initializers_file_folder_path': _folder, ...entries } = configEntries;
  const facts = {
    format: FORMAT,
    graph: createHash('sha256').update(model).digest('hex'),
    files: await Promise.all(files.map(identityOf)),
    runtime: runtimeVersion(),
    processor: await processor(),
    provider,
    entries,
  };
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex');
}

/** A file that is replaced or written to has another time, whatever its owner sets the time of modification to. */
export async function identityOf(file: string): Promise<readonly string[]> {
  const { size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
  return [String(size), String(mtimeNs), String(ctimeNs), await digestFile(file)];
}

/** Of the library that both implementations of sessions call. */
function runtimeVersion(): string {
  const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { readonly version: string };
  return version;
}

async function processor(): Promise<readonly string[]> {
  const names = [platform(), arch(), cpus()[0]?.model ?? ''];
  const info = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  // `flags` on x86, `Features` on ARM.
  return [...names, /^(?:flags|Features)\s*:.*$/m.exec(info)?.[0] ?? ''];
}
