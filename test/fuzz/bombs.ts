import { ints, pickle, pthBytes, raw } from '../support/pth-bytes.js';
import { safetensorsBytes } from '../support/safetensors-bytes.js';

/** A small or legal file that was made to cost much. */
export interface Bomb {
  readonly name: string;
  /** Of the parser. */
  readonly parser: string;
  make(): Buffer;
}

const empty = { dtype: 'F32', shape: [0], data_offsets: [0, 0] };
const many = (count: number, entry: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => entry(i)).join(',');
const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: number) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
const gguf = (tensors: number, entries: number, ...rest: readonly Buffer[]) =>
  Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors), u64(entries), ...rest]);
const metadata = (entries: Readonly<Record<string, string>>, module = 'unet.mid_block.attentions.0.proj_in') =>
  safetensorsBytes({ __metadata__: entries, [`${module}.lora_A.weight`]: empty, [`${module}.lora_B.weight`]: empty });

const charsmap = (bytes: number) => Buffer.concat([u32(bytes), Buffer.alloc(bytes, 1), Buffer.from('\0')]);
/** As protobuf has it. */
const varint = (value: number) => {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    bytes.push((rest % 128) | (rest >= 128 ? 128 : 0));
    if (rest < 128) return Buffer.from(bytes);
  }
};
const BYTES = 31_000_000;

export const bombs: readonly Bomb[] = [
  { name: 'nested lists', parser: 'safetensors', make: () => safetensorsBytes('['.repeat(BYTES)) },
  { name: 'nested objects', parser: 'safetensors', make: () => safetensorsBytes('{"a":'.repeat(BYTES / 5)) },
  { name: 'a flat list', parser: 'safetensors', make: () => safetensorsBytes(`[${'[],'.repeat(BYTES / 3)}[]]`) },
  { name: 'a long name', parser: 'safetensors', make: () => safetensorsBytes({ ['x'.repeat(BYTES)]: empty }) },
  {
    name: 'a long type',
    parser: 'safetensors',
    make: () => safetensorsBytes({ a: { ...empty, dtype: 'x'.repeat(BYTES) } }),
  },
  {
    name: 'a long shape',
    parser: 'safetensors',
    make: () => safetensorsBytes(`{"a":{"dtype":"F32","shape":[${many(1_500_000, () => '1')}]}}`),
  },
  {
    name: 'long metadata',
    parser: 'safetensors',
    make: () => safetensorsBytes({ __metadata__: { a: 'é'.repeat(BYTES / 2) } }),
  },
  {
    name: 'many metadata',
    parser: 'safetensors',
    make: () => safetensorsBytes(`{"__metadata__":{${many(1_500_000, (i) => `"${i}":""`)}}}`),
  },
  {
    name: 'many tensors',
    parser: 'safetensors',
    make: () => safetensorsBytes(`{${many(99_000, (i) => `"${i}":${JSON.stringify(empty)}`)}}`),
  },
  {
    name: 'many modules',
    parser: 'lora',
    make: () => safetensorsBytes(`{${many(90_000, (i) => `"unet.${i}.lora_A.weight":${JSON.stringify(empty)}`)}}`),
  },
  {
    name: 'many keys without a module',
    parser: 'lora',
    make: () => safetensorsBytes(`{${many(90_000, (i) => `"${'lora_'.repeat(60)}${i}":${JSON.stringify(empty)}`)}}`),
  },
  {
    name: 'many tags',
    parser: 'lora',
    make: () => metadata({ ss_tag_frequency: `{"a":{${many(400_000, (i) => `"tag ${i}":1`)}}}` }),
  },
  {
    name: 'tags that are a text',
    parser: 'lora',
    make: () => metadata({ ss_tag_frequency: JSON.stringify({ a: 'x'.repeat(7_900_000) }) }),
  },
  {
    name: 'more tags',
    parser: 'lora',
    make: () => metadata({ ss_tag_frequency: `{"a":{${many(2_000_000, (i) => `"${i}":1`)}}}` }),
  },
  {
    name: 'many alphas',
    parser: 'lora',
    make: () => metadata({ lora_adapter_metadata: `{"unet.alpha_pattern":{${many(19_000, (i) => `"a.${i}":1`)}}}` }),
  },
  { name: 'nested settings', parser: 'lora', make: () => metadata({ lora_adapter_metadata: '['.repeat(3_900_000) }) },
  {
    name: 'a tuple recalled for every tensor',
    parser: 'pickle',
    make: () => {
      const call = Buffer.concat([raw('ctorch._utils\n_rebuild_tensor_v2\n(NK\0'), raw('h\0h\0tR')]);
      return pickle(
        ints(Array.from({ length: 50_000 }, () => 1)),
        'q\0',
        ...Array.from({ length: 10_000 }, () => call),
      );
    },
  },
  {
    name: 'a long name recalled',
    parser: 'pickle',
    make: () =>
      pickle(Buffer.concat([raw('X'), u32(300_000), Buffer.alloc(300_000, 'x')]), 'q\0', 'h\0h\0\x93'.repeat(50_000)),
  },
  {
    name: 'a list in itself',
    parser: 'pickle',
    make: () => pickle(']q\0', 'h\0a'.repeat(400_000)),
  },
  { name: 'many opcodes', parser: 'pickle', make: () => pickle(')', '\x85'.repeat(1_990_000)) },
  {
    name: 'many entries',
    parser: 'zip',
    make: () => {
      const more = Array.from({ length: 19_900 }, (_, i) => ({ name: `model/data/${i}`, content: new Uint8Array() }));
      return pthBytes(pickle('}'), {}, { more });
    },
  },
  { name: 'a directory of nothing', parser: 'zip', make: () => Buffer.alloc(16_000_000, 'PK\x01\x02') },
  {
    name: 'an array of numbers',
    parser: 'gguf',
    make: () => gguf(0, 1, text('k'), u32(9), u32(0), u64(2_999_999), Buffer.alloc(2_999_999)),
  },
  {
    name: 'an array of empty texts',
    parser: 'gguf',
    make: () => gguf(0, 1, text('k'), u32(9), u32(8), u64(2_999_999), Buffer.alloc(8 * 2_999_999)),
  },
  {
    name: 'arrays one after the other',
    parser: 'gguf',
    make: () =>
      gguf(
        0,
        100,
        ...Array.from({ length: 100 }, (_, i) =>
          Buffer.concat([text(`k${i}`), u32(9), u32(1), u64(500_000), Buffer.alloc(500_000)]),
        ),
      ),
  },
  {
    name: 'nested arrays',
    parser: 'gguf',
    make: () =>
      gguf(0, 1, text('k'), ...Array.from({ length: 100_000 }, () => Buffer.concat([u32(9), u32(9), u64(1)]))),
  },
  {
    name: 'many tensors',
    parser: 'gguf',
    make: () =>
      gguf(
        99_000,
        0,
        ...Array.from({ length: 99_000 }, (_, i) => Buffer.concat([text(`${i}`), u32(1), u64(0), u32(0), u64(0)])),
        Buffer.alloc(64),
      ),
  },
  { name: 'nested lists', parser: 'tokenizer-umt5', make: () => Buffer.from('['.repeat(50_000_000)) },
  {
    name: 'many bad pieces',
    parser: 'tokenizer-umt5',
    make: () => Buffer.from(`{"model":{"type":"Unigram","unk_id":0,"vocab":[${many(900_000, () => '[1,"a"]')}]}}`),
  },
  {
    name: 'many pieces',
    parser: 'tokenizer-umt5',
    make: () =>
      Buffer.from(`{"model":{"type":"Unigram","unk_id":0,"vocab":[${many(390_000, (i) => `["a${i}",-1]`)}]}}`),
  },
  {
    name: 'many added tokens',
    parser: 'tokenizer-umt5',
    make: () =>
      Buffer.from(
        `{"added_tokens":[${many(1_000, (i) => `{"id":${i},"content":"${'a'.repeat(200)}${i}","lstrip":true,"rstrip":true}`)}],"model":{"type":"Unigram","unk_id":0,"vocab":[["</s>",0]]}}`,
      ),
  },
  {
    name: 'many bad words',
    parser: 'tokenizer-clip',
    make: () =>
      Buffer.from(
        `{"model":{"type":"BPE","end_of_word_suffix":"</w>","merges":[],"vocab":{${many(900_000, (i) => `"${i}":"a"`)}}}}`,
      ),
  },
  {
    name: 'many pieces',
    parser: 'sentencepiece',
    make: () => Buffer.concat(Array.from({ length: 390_000 }, () => Buffer.from([0x0a, 0x03, 0x0a, 0x01, 0x61]))),
  },
  {
    name: 'a large charsmap',
    parser: 'tokenizer-umt5',
    make: () =>
      Buffer.from(
        `{"normalizer":{"type":"Precompiled","precompiled_charsmap":"${charsmap(60_000_000).toString('base64')}"},"model":{"type":"Unigram","unk_id":0,"vocab":[["</s>",0],["a",-1]]}}`,
      ),
  },
  {
    name: 'a large charsmap',
    parser: 'sentencepiece',
    make: () => {
      const bytes = charsmap(45_000_000);
      const field = Buffer.concat([Buffer.from([0x12]), varint(bytes.length), bytes]);
      const pieces = [
        [0x0a, 0x08, 0x0a, 0x04, 0x3c, 0x2f, 0x73, 0x3e, 0x18, 0x03],
        [0x0a, 0x05, 0x0a, 0x01, 0x75, 0x18, 0x02],
        [0x0a, 0x03, 0x0a, 0x01, 0x61],
      ];
      return Buffer.concat([Buffer.from(pieces.flat()), Buffer.from([0x1a]), varint(field.length), field]);
    },
  },
  { name: 'nested groups', parser: 'sentencepiece', make: () => Buffer.alloc(20_000_000, 0x0b) },
  { name: 'nested lists', parser: 'payload', make: () => Buffer.from('['.repeat(1_000_000)) },
  { name: 'many fields', parser: 'payload', make: () => Buffer.from(`{${many(80_000, (i) => `"${i}":1`)}}`) },
];
