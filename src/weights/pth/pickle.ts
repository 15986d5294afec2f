/**
 * The part of Python's pickle that a saved state dict is written in. It is an interpreter of a list of opcodes and of a list of
 * names, both closed: whatever else a file asks for is refused by name, and nothing of a file is ever run.
 * https://github.com/python/cpython/blob/v3.13.0/Lib/pickletools.py
 */

import { shown } from '../../std/shown.js';
import {
  countsOf,
  globalOf,
  isCount,
  isStorage,
  type Pickled,
  type PickledGlobal,
  type PickledStorage,
  type PickledTensor,
  sequenceOf,
  tensorOf,
} from './pickled.js';

type Refuse = (problem: string) => never;

/** About forty opcodes a tensor: enough for fifty thousand. */
const MAX_OPCODES = 2_000_000;
/** The longest list of numbers that is looked through: a shape. A list of values can be recalled at the price of two bytes. */
const MAX_RANK = 16;
/** Dicts are filled a thousand entries at a time. */
const MAX_STACK = 100_000;
/** Tuples in tuples in tuples are three deep in a state dict. */
const MAX_MARKS = 1_000;

const MAX_NAME_CHARACTERS = 256;

const STORAGE = /^torch\.(Float|Half|BFloat16|Double|Long|Int|Short|Char|Byte|Bool)Storage$/;
const ORDERED_DICT = 'collections.OrderedDict';
const REBUILD_TENSOR = 'torch._utils._rebuild_tensor_v2';
const REBUILD_PARAMETER = 'torch._utils._rebuild_parameter';

/** Opcodes that exist and are not served, for the message. */
const REFUSED: ReadonlyMap<number, string> = new Map([
  [0x30, 'POP'],
  [0x31, 'POP_MARK'],
  [0x32, 'DUP'],
  [0x42, 'BINBYTES'],
  [0x43, 'SHORT_BINBYTES'],
  [0x46, 'FLOAT'],
  [0x49, 'INT'],
  [0x4c, 'LONG'],
  [0x50, 'PERSID'],
  [0x53, 'STRING'],
  [0x54, 'BINSTRING'],
  [0x55, 'SHORT_BINSTRING'],
  [0x56, 'UNICODE'],
  [0x64, 'DICT'],
  [0x67, 'GET'],
  [0x69, 'INST'],
  [0x6c, 'LIST'],
  [0x6f, 'OBJ'],
  [0x70, 'PUT'],
  [0x81, 'NEWOBJ'],
  [0x82, 'EXT1'],
  [0x83, 'EXT2'],
  [0x84, 'EXT4'],
  [0x8b, 'LONG4'],
  [0x8e, 'BINBYTES8'],
  [0x8f, 'EMPTY_SET'],
  [0x90, 'ADDITEMS'],
  [0x91, 'FROZENSET'],
  [0x92, 'NEWOBJ_EX'],
  [0x96, 'BYTEARRAY8'],
  [0x97, 'NEXT_BUFFER'],
  [0x98, 'READONLY_BUFFER'],
]);

/** The value that a pickle describes. @param refuse throws an error with the problem that it is given */
export function readPickle(bytes: Buffer, refuse: Refuse): Pickled {
  return new Reader(bytes, refuse).read();
}

class Reader {
  readonly #bytes: Buffer;
  readonly #refuse: Refuse;
  readonly #stack: Pickled[] = [];
  /** Heights of the stack where a run of values began. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, Pickled>();
  #at = 0;

  constructor(bytes: Buffer, refuse: Refuse) {
    this.#bytes = bytes;
    this.#refuse = (problem) => refuse(`has a pickle that ${problem}`);
  }

  read(): Pickled {
    for (let count = 0; count < MAX_OPCODES; count += 1) {
      const opcode = this.#take(1).readUInt8(0);
      if (opcode === 0x2e) return this.#pop(); // STOP
      this.#run(opcode);
      if (this.#stack.length > MAX_STACK) this.#refuse(`holds more than ${MAX_STACK} values at once`);
      if (this.#marks.length > MAX_MARKS) this.#refuse(`is nested more than ${MAX_MARKS} deep`);
    }
    return this.#refuse(`has more than ${MAX_OPCODES} opcodes`);
  }

  #run(opcode: number): void {
    const stack = this.#stack;
    switch (opcode) {
      case 0x80: // PROTO
        this.#assertProtocol(this.#take(1).readUInt8(0));
        break;
      case 0x95: // FRAME
        this.#take(8);
        break;
      case 0x28: // MARK
        this.#marks.push(stack.length);
        break;
      case 0x4e: // NONE
        stack.push(null);
        break;
      case 0x88: // NEWTRUE
      case 0x89: // NEWFALSE
        stack.push(opcode === 0x88);
        break;
      case 0x4b: // BININT1
        stack.push(this.#take(1).readUInt8(0));
        break;
      case 0x4d: // BININT2
        stack.push(this.#take(2).readUInt16LE(0));
        break;
      case 0x4a: // BININT
        stack.push(this.#take(4).readInt32LE(0));
        break;
      case 0x8a: // LONG1
        stack.push(this.#long(this.#take(1).readUInt8(0)));
        break;
      case 0x47: // BINFLOAT
        stack.push(this.#take(8).readDoubleBE(0));
        break;
      case 0x8c: // SHORT_BINUNICODE
        stack.push(this.#text(this.#take(1).readUInt8(0)));
        break;
      case 0x58: // BINUNICODE
        stack.push(this.#text(this.#take(4).readUInt32LE(0)));
        break;
      case 0x8d: // BINUNICODE8
        stack.push(this.#text(Number(this.#take(8).readBigUInt64LE(0))));
        break;
      case 0x7d: // EMPTY_DICT
        stack.push(new Map());
        break;
      case 0x5d: // EMPTY_LIST
        stack.push({ kind: 'list', items: [] });
        break;
      case 0x29: // EMPTY_TUPLE
        stack.push({ kind: 'tuple', items: [] });
        break;
      case 0x74: // TUPLE
        stack.push({ kind: 'tuple', items: this.#popMarked() });
        break;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        stack.push({ kind: 'tuple', items: this.#popMany(opcode - 0x84) });
        break;
      case 0x61: // APPEND
        this.#append(this.#popMany(1));
        break;
      case 0x65: // APPENDS
        this.#append(this.#popMarked());
        break;
      case 0x73: // SETITEM
        this.#set(this.#popMany(2));
        break;
      case 0x75: // SETITEMS
        this.#set(this.#popMarked());
        break;
      case 0x63: // GLOBAL
        stack.push(this.#global(this.#line(), this.#line()));
        break;
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#popMany(2);
        if (typeof module !== 'string' || typeof name !== 'string')
          this.#refuse('names code by something that is no text');
        stack.push(this.#global(module, name));
        break;
      }
      case 0x71: // BINPUT
        this.#memo.set(this.#take(1).readUInt8(0), this.#top());
        break;
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#take(4).readUInt32LE(0), this.#top());
        break;
      case 0x94: // MEMOIZE
        this.#memo.set(this.#memo.size, this.#top());
        break;
      case 0x68: // BINGET
        stack.push(this.#recall(this.#take(1).readUInt8(0)));
        break;
      case 0x6a: // LONG_BINGET
        stack.push(this.#recall(this.#take(4).readUInt32LE(0)));
        break;
      case 0x51: // BINPERSID
        stack.push(this.#storage(this.#pop()));
        break;
      case 0x52: {
        // REDUCE
        const [callable, args] = this.#popMany(2);
        stack.push(this.#reduce(callable, args));
        break;
      }
      case 0x62: // BUILD: attributes of an OrderedDict, of which torch sets _metadata
        this.#pop();
        if (!(this.#top() instanceof Map)) this.#refuse('gives attributes to something that is no dict');
        break;
      default:
        this.#refuse(
          `uses the opcode ${REFUSED.get(opcode) ?? `0x${opcode.toString(16)}`}, which no state dict needs; do not trust this file`,
        );
    }
  }

  #assertProtocol(version: number): void {
    if (version < 2 || version > 5) this.#refuse(`is of protocol ${version}; 2 to 5 are known`);
  }

  /** The one place where names of code are looked at. */
  #global(module: string, name: string): PickledGlobal {
    // Longer ones are none of these: joined and matched again and again they would be the work of hours.
    if (module.length + name.length > MAX_NAME_CHARACTERS) this.#refuse('asks for a name of code that is too long');
    const full = `${module}.${name}`;
    const isKnown = [ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER].includes(full) || STORAGE.test(full);
    if (!isKnown) this.#refuse(`asks for "${shown(full)}", which no state dict needs; do not trust this file`);
    return { kind: 'global', name: full };
  }

  #reduce(callable: Pickled | undefined, args: Pickled | undefined): Pickled {
    const { items } = sequenceOf(args) ?? this.#refuse('calls something without a tuple of arguments');
    switch (globalOf(callable)) {
      case ORDERED_DICT:
        if (items.length > 0) this.#refuse('makes an OrderedDict of something; torch makes an empty one and fills it');
        return new Map();
      case REBUILD_TENSOR:
        return this.#tensor(items);
      case REBUILD_PARAMETER:
        return tensorOf(items[0]) ?? this.#refuse('makes a parameter of something that is no tensor');
      default:
        return this.#refuse('calls something that is no function of torch._utils');
    }
  }

  #tensor([storage, offset, size, strides]: readonly (Pickled | undefined)[]): PickledTensor {
    const [shape, steps] = [this.#counts(size), this.#counts(strides)];
    const isWhole = isStorage(storage) && isCount(offset) && shape !== undefined && steps?.length === shape.length;
    if (!isWhole) return this.#refuse('rebuilds a tensor from something else than storage, offset, size and strides');
    return { kind: 'tensor', storage, offset, shape, strides: steps };
  }

  #counts(value: Pickled | undefined): number[] | undefined {
    const length = sequenceOf(value)?.items.length ?? 0;
    if (length > MAX_RANK) this.#refuse(`gives a tensor ${length} dimensions, the limit is ${MAX_RANK}`);
    return countsOf(value);
  }

  // ('storage', type, key, location, elements)
  #storage(id: Pickled): PickledStorage {
    const [what, type, key, , elements] = sequenceOf(id)?.items ?? [];
    const [, name] = /^torch\.(\w+Storage)$/.exec(globalOf(type) ?? '') ?? [];
    if (what !== 'storage' || name === undefined || typeof key !== 'string' || !isCount(elements)) {
      return this.#refuse('refers to something else than a storage');
    }
    return { kind: 'storage', type: name, key, elements };
  }

  #append(items: readonly Pickled[]): void {
    const top = sequenceOf(this.#top());
    const list = top?.kind === 'list' ? top.items : this.#refuse('appends to something that is no list');
    for (const item of items) list.push(item);
  }

  #set(items: readonly Pickled[]): void {
    const top = this.#top();
    const dict = top instanceof Map ? top : this.#refuse('sets entries of something that is no dict');
    if (items.length % 2 !== 0) this.#refuse('sets a key without a value');
    for (let i = 0; i < items.length; i += 2) {
      const [key, value = null] = [items[i], items[i + 1]];
      if (typeof key === 'string') dict.set(key, value);
    }
  }

  #recall(index: number): Pickled {
    const value = this.#memo.get(index);
    return value === undefined ? this.#refuse(`recalls value ${index}, which it never remembered`) : value;
  }

  #take(count: number): Buffer {
    const end = this.#at + count;
    if (!(end <= this.#bytes.length)) this.#refuse(`ends inside an opcode, at byte ${this.#bytes.length}`);
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.#refuse(`ends inside an opcode, at byte ${this.#bytes.length}`);
    const text = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return text;
  }

  #text(bytes: number): string {
    return this.#take(bytes).toString('utf8');
  }

  // Little-endian two's complement.
  #long(bytes: number): number {
    if (bytes > 8) this.#refuse(`has a number of ${bytes} bytes`);
    const taken = this.#take(bytes);
    if (bytes === 0) return 0;
    const padded = Buffer.alloc(8, (taken[bytes - 1] ?? 0) >= 0x80 ? 0xff : 0);
    taken.copy(padded);
    return Number(padded.readBigInt64LE(0));
  }

  #top(): Pickled {
    const top = this.#stack.at(-1);
    return top === undefined || this.#isBelowMark(1) ? this.#refuse('uses a value that is not there') : top;
  }

  #pop(): Pickled {
    return this.#popMany(1)[0] ?? null;
  }

  #popMany(count: number): Pickled[] {
    if (this.#isBelowMark(count)) this.#refuse('uses a value that is not there');
    return this.#stack.splice(this.#stack.length - count);
  }

  #popMarked(): Pickled[] {
    const mark = this.#marks.pop();
    return mark === undefined ? this.#refuse('ends a run of values that it never began') : this.#stack.splice(mark);
  }

  #isBelowMark(count: number): boolean {
    return this.#stack.length - count < (this.#marks.at(-1) ?? 0);
  }
}
