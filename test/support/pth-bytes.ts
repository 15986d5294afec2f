/** Writes zip archives and pickles as torch.save does, and as nothing should. */

export interface ZipPart {
  readonly name: string;
  readonly content: Uint8Array;
  /** 0, stored, where omitted. */
  readonly method?: number;
  /** Bit 0 is encryption. */
  readonly flags?: number;
  /** Where the directory says the entry begins; omitted, where it does. */
  readonly header?: number;
  /** What the directory says its length is. */
  readonly length?: number;
  /** The name in the entry's own header. */
  readonly localName?: string;
}

export interface ZipOptions {
  /** Sizes and offsets in zip64 fields, as in an archive of more than 4 GB. */
  readonly zip64?: boolean;
  /** How many entries the end record promises. */
  readonly count?: number;
  readonly directoryOffset?: number;
  readonly directoryLength?: number;
}

export function zipBytes(parts: readonly ZipPart[], options: ZipOptions = {}): Buffer {
  const body: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const part of parts) {
    const { name, content, method = 0, flags = 0, localName = name } = part;
    const [header, length] = [part.header ?? at, part.length ?? content.length];
    const common = (size: number) =>
      Buffer.concat([u16(20), u16(flags), u16(method), u32(0), u32(0), u32(size), u32(size)]);
    const local = [Buffer.from('PK\x03\x04', 'latin1'), common(length), u16(localName.length), u16(0)];
    body.push(...local, Buffer.from(localName), Buffer.from(content));
    const extra = options.zip64
      ? Buffer.concat([u16(1), u16(24), u64(length), u64(length), u64(header)])
      : Buffer.alloc(0);
    directory.push(
      Buffer.from('PK\x01\x02', 'latin1'),
      u16(20),
      common(options.zip64 ? 0xffffffff : length),
      u16(Buffer.byteLength(name)),
      u16(extra.length),
      Buffer.alloc(10),
      u32(options.zip64 ? 0xffffffff : header),
      Buffer.from(name),
      extra,
    );
    at += 30 + Buffer.byteLength(localName) + content.length;
  }
  const list = Buffer.concat(directory);
  const { count = parts.length, directoryOffset = at, directoryLength = list.length } = options;
  const record = Buffer.concat([
    Buffer.from('PK\x06\x06', 'latin1'),
    u64(44),
    u16(45),
    u16(45),
    u32(0),
    u32(0),
    u64(count),
    u64(count),
    u64(directoryLength),
    u64(directoryOffset),
  ]);
  const locator = Buffer.concat([Buffer.from('PK\x06\x07', 'latin1'), u32(0), u64(at + list.length), u32(1)]);
  const end = options.zip64
    ? [u16(0xffff), u16(0xffff), u32(0xffffffff), u32(0xffffffff)]
    : [u16(count), u16(count), u32(directoryLength), u32(directoryOffset)];
  return Buffer.concat([
    ...body,
    list,
    ...(options.zip64 ? [record, locator] : []),
    Buffer.from('PK\x05\x06', 'latin1'),
    u16(0),
    u16(0),
    ...end,
    u16(0),
  ]);
}

/** A pickle of protocol 2 around opcodes. */
export function pickle(...opcodes: readonly (Buffer | string)[]): Buffer {
  return Buffer.concat([
    raw('\x80\x02'),
    ...opcodes.map((code) => (typeof code === 'string' ? raw(code) : code)),
    raw('.'),
  ]);
}

export const text = (value: string) => Buffer.concat([raw('X'), u32(Buffer.byteLength(value)), Buffer.from(value)]);
export const int = (value: number) => Buffer.concat([raw('J'), i32(value)]);
export const named = (module: string, name: string) => raw(`c${module}\n${name}\n`);
export const tuple = (...items: readonly (Buffer | string)[]) =>
  Buffer.concat([raw('('), ...items.map((item) => (typeof item === 'string' ? raw(item) : item)), raw('t')]);
export const ints = (values: readonly number[]) => tuple(...values.map(int));
export const dict = (entries: Readonly<Record<string, Buffer>>) =>
  Buffer.concat([raw('}('), ...Object.entries(entries).flatMap(([key, value]) => [text(key), value]), raw('u')]);
export const orderedDict = Buffer.from('ccollections\nOrderedDict\n)R');

export interface PickledTensorPart {
  readonly key?: string;
  readonly storage?: string;
  readonly elements: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly strides?: readonly number[];
}

/** torch._utils._rebuild_tensor_v2 of a storage. */
export function tensor(part: PickledTensorPart): Buffer {
  const { key = '0', storage = 'FloatStorage', elements, offset = 0, shape } = part;
  const strides = part.strides ?? shape.map((_, i) => shape.slice(i + 1).reduce((product, dim) => product * dim, 1));
  const id = tuple(text('storage'), named('torch', storage), text(key), text('cpu'), int(elements));
  return Buffer.concat([
    named('torch._utils', '_rebuild_tensor_v2'),
    tuple(Buffer.concat([id, raw('Q')]), int(offset), ints(shape), ints(strides), '\x89', orderedDict),
    raw('R'),
  ]);
}

/** A whole `.pth`: its pickle, its storages by key, and what else lies in it. */
export function pthBytes(
  data: Buffer,
  storages: Readonly<Record<string, Uint8Array>> = {},
  { more = [], ...options }: ZipOptions & { readonly more?: readonly ZipPart[] } = {},
): Buffer {
  return zipBytes(
    [
      { name: 'model/data.pkl', content: data },
      { name: 'model/byteorder', content: Buffer.from('little') },
      ...Object.entries(storages).map(([key, content]) => ({ name: `model/data/${key}`, content })),
      ...more,
    ],
    options,
  );
}

export const raw = (codes: string) => Buffer.from(codes, 'latin1');
const u16 = (value: number) => fill(2, (bytes) => bytes.writeUInt16LE(value));
const u32 = (value: number) => fill(4, (bytes) => bytes.writeUInt32LE(value));
const i32 = (value: number) => fill(4, (bytes) => bytes.writeInt32LE(value));
const u64 = (value: number) => fill(8, (bytes) => bytes.writeBigUInt64LE(BigInt(value)));

function fill(length: number, write: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.alloc(length);
  write(bytes);
  return bytes;
}
