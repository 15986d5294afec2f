import { realpath } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { elementCount } from '../../std/element-count.js';
import { formatShape } from '../../std/format-shape.js';
import { shown } from '../../std/shown.js';
import { openFile } from '../open-file.js';
import type { TensorRecord } from '../safetensors.js';
import { readPickle } from './pickle.js';
import { type Pickled, type PickledDict, type PickledTensor, tensorOf } from './pickled.js';
import { readExactly, readZipEntries, type ZipEntry } from './zip-entries.js';

export interface PthFile {
  /** Real path, symbolic links resolved. */
  readonly file: string;
  readonly tensors: ReadonlyMap<string, TensorRecord>;
}

type Refuse = (problem: string) => never;

/** 120 bytes a tensor: WAN 14B takes 150 KB. */
const MAX_PICKLE_BYTES = 16_000_000;
/** The same limit as for safetensors. */
const MAX_RANK = 16;
/** Trainers put the state dict into a dict, some of them twice. */
const MAX_WRAPPERS = 3;
const WRAPPERS = [
  'state_dict',
  'model_state_dict',
  'model',
  'module',
  'params_ema',
  'params',
  'string_to_param',
] as const;

const STORED: Readonly<Record<string, readonly [dtype: string, bytes: number]>> = {
  FloatStorage: ['F32', 4],
  HalfStorage: ['F16', 2],
  BFloat16Storage: ['BF16', 2],
  DoubleStorage: ['F64', 8],
  LongStorage: ['I64', 8],
  IntStorage: ['I32', 4],
  ShortStorage: ['I16', 2],
  CharStorage: ['I8', 1],
  ByteStorage: ['U8', 1],
  BoolStorage: ['BOOL', 1],
};

/**
 * Reads the list of tensors of a `.pth` file, as torch.save writes a state dict since version 1.6: a zip archive of a pickle and
 * one entry a storage, none compressed, so that every tensor can be used where it lies. The pickle is read by pickle.ts, which
 * knows tensors and dicts and refuses everything else; no tensor is read.
 *
 * @throws InferenceError CHECKPOINT_INVALID, one sentence that names the file and what is wrong
 */
export async function readPth(path: string): Promise<PthFile> {
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
  };
  const file = await realpath(path).catch(() => refuse('does not exist or cannot be read'));
  const handle = await openFile(file, refuse);
  try {
    const { size } = await handle.stat();
    const start = await readExactly(handle, 0, Math.min(size, 4), refuse);
    if (start[0] === 0x80) refuse('is in the format of torch before 1.6; load it and save it again with torch.save');
    const entries = await readZipEntries(handle, size, refuse);
    const { root, pickle } = findPickle(entries, refuse);
    const byteOrder = entries.get(`${root}/byteorder`);
    if (byteOrder !== undefined) {
      const order = (await readExactly(handle, byteOrder.offset, Math.min(byteOrder.length, 16), refuse)).toString();
      if (order !== 'little')
        refuse(`says its byte order is ${JSON.stringify(order)}; only "little" can be read in place`);
    }
    const content = readPickle(await readExactly(handle, pickle.offset, pickle.length, refuse), refuse);
    const tensors = new Map<string, TensorRecord>();
    for (const [name, value] of stateDict(content, refuse)) {
      const tensor = tensorOf(value);
      if (tensor !== undefined) tensors.set(name, place(name, tensor, { file, root, entries, refuse }));
    }
    return { file, tensors };
  } finally {
    await handle.close();
  }
}

function findPickle(entries: ReadonlyMap<string, ZipEntry>, refuse: Refuse): { root: string; pickle: ZipEntry } {
  const found = [...entries.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle, second] = found;
  if (pickle === undefined) return refuse('is a zip archive without data.pkl; it is no PyTorch checkpoint');
  if (second !== undefined) refuse(`has two pickles, ${pickle.name} and ${second.name}`);
  if (pickle.length > MAX_PICKLE_BYTES) {
    refuse(`has a pickle of ${pickle.length} bytes, the limit is ${MAX_PICKLE_BYTES}`);
  }
  return { root: pickle.name.slice(0, -'/data.pkl'.length), pickle };
}

function stateDict(content: Pickled, refuse: Refuse): PickledDict {
  let dict = content;
  for (let depth = 0; depth <= MAX_WRAPPERS && dict instanceof Map; depth += 1) {
    const entries: PickledDict = dict;
    if ([...entries.values()].some((value) => tensorOf(value) !== undefined)) return entries;
    const wrapper = WRAPPERS.find((name) => entries.get(name) instanceof Map);
    dict = wrapper === undefined ? null : (entries.get(wrapper) ?? null);
  }
  return refuse('holds no dict of tensors');
}

interface Place {
  readonly file: string;
  readonly root: string;
  readonly entries: ReadonlyMap<string, ZipEntry>;
  readonly refuse: Refuse;
}

function place(name: string, tensor: PickledTensor, { file, root, entries, refuse }: Place): TensorRecord {
  const { storage, shape, strides } = tensor;
  const [dtype, itemBytes] = STORED[storage.type] ?? refuse(`has tensor "${shown(name)}" in a ${storage.type}`);
  const entry = entries.get(`${root}/data/${storage.key}`);
  if (entry === undefined) return refuse(`has no entry ${root}/data/${storage.key}, where tensor "${name}" lies`);
  if (entry.length !== storage.elements * itemBytes) {
    refuse(
      `holds ${entry.length} bytes in ${entry.name}, but ${storage.elements} elements of ${dtype} take ${storage.elements * itemBytes}`,
    );
  }
  if (shape.length > MAX_RANK) refuse(`gives tensor "${name}" ${shape.length} dimensions, the limit is ${MAX_RANK}`);
  const elements = elementCount(shape);
  if (!isRowMajor(shape, strides)) {
    refuse(
      `has tensor "${name}" ${formatShape(shape)} with strides ${formatShape(strides)}, not row after row; save it again with .contiguous()`,
    );
  }
  if (tensor.offset + elements > storage.elements) {
    refuse(
      `has tensor "${name}" end at element ${tensor.offset + elements} of ${entry.name}, which has ${storage.elements}`,
    );
  }
  return { name, dtype, shape, file, offset: entry.offset + tensor.offset * itemBytes, length: elements * itemBytes };
}

/** The stride of a dimension of one element is never used, and torch leaves anything there. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i -= 1) {
    const size = shape[i] ?? 0;
    if (size !== 1 && strides[i] !== step) return false;
    step *= size;
  }
  return true;
}
