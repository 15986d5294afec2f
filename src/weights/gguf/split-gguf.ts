import { InferenceError } from '../../errors.js';
import { type GgufHeader, type GgufTensorInfo, readGgufHeader } from './gguf-header.js';

/** Names that llama.cpp gives the parts of a split file; it finds the others by them. */
const PART = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;
/** The largest published models come in under 200 parts. */
const MAX_PARTS = 1_000;

/**
 * Reads the header of a GGUF file, or of all parts of a split one, of which `path` is any. The first part has the metadata, and
 * no tensors in some files.
 *
 * @returns the path of the first part, the metadata of the first part, the tensors and the bytes of all
 * @throws InferenceError of `readGgufHeader`; CHECKPOINT_INVALID for parts that are missing or do not belong together
 */
export async function readSplitGgufHeader(path: string): Promise<GgufHeader> {
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
  };
  const [, stem, , last = ''] = PART.exec(path) ?? [];
  if (stem === undefined) {
    const header = await readGgufHeader(path);
    const count = partsOf(header);
    if (count > 1) refuse(`is one of ${count} parts; name them as llama.cpp does, NAME-00001-of-${number(count)}.gguf`);
    return header;
  }
  const count = Number(last);
  if (count < 1 || count > MAX_PARTS) refuse(`is one of ${count} parts, the limit is ${MAX_PARTS}`);
  const tensors = new Map<string, GgufTensorInfo>();
  let first: GgufHeader | undefined;
  let fileBytes = 0;
  for (let i = 1; i <= count; i += 1) {
    const header = await readGgufHeader(`${stem}-${number(i)}-of-${last}.gguf`);
    const found = partsOf(header);
    if (found !== count && count > 1) refuse(`has ${count} parts by its name, part ${i} says ${found}`);
    first ??= header;
    fileBytes += header.fileBytes;
    for (const [name, tensor] of header.tensors) tensors.set(name, tensor);
  }
  if (first === undefined) return refuse('has no parts');
  const expected = first.metadata.get('split.tensors.count');
  if (typeof expected === 'number' && expected !== tensors.size) {
    refuse(`has ${tensors.size} tensors in ${count} parts, must have ${expected}; download all parts again`);
  }
  return { path: first.path, fileBytes, metadata: first.metadata, tensors };
}

function partsOf({ metadata }: GgufHeader): number {
  const count = metadata.get('split.count');
  return typeof count === 'number' ? count : 1;
}

function number(part: number): string {
  return String(part).padStart(5, '0');
}
