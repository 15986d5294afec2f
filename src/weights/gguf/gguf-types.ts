/**
 * The types of a GGUF file. https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/docs/gguf.md
 */

export const GGUF_MAGIC = 'GGUF';
export const GGUF_VERSION = 3;
/** Alignment of files without `general.alignment`. */
export const GGUF_ALIGNMENT = 32;

/** Whether a file's name says that it is a GGUF file. */
export function isGguf(path: string): boolean {
  return /\.gguf$/i.test(path);
}

/** The number that stands for each kind of metadata value. */
export const valueTypes = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

export interface TensorType {
  readonly name: string;
  /** Elements that are stored together; a row is a whole number of blocks. */
  readonly blockElements: number;
  readonly blockBytes: number;
}

/**
 * Every type that a tensor of a current file can have, by its number. Sizes:
 * https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/src/ggml-common.h
 */
export const tensorTypes: ReadonlyMap<number, TensorType> = new Map(
  (
    [
      [0, 'F32', 1, 4],
      [1, 'F16', 1, 2],
      [2, 'Q4_0', 32, 18],
      [3, 'Q4_1', 32, 20],
      [6, 'Q5_0', 32, 22],
      [7, 'Q5_1', 32, 24],
      [8, 'Q8_0', 32, 34],
      [9, 'Q8_1', 32, 36],
      [10, 'Q2_K', 256, 84],
      [11, 'Q3_K', 256, 110],
      [12, 'Q4_K', 256, 144],
      [13, 'Q5_K', 256, 176],
      [14, 'Q6_K', 256, 210],
      [15, 'Q8_K', 256, 292],
      [16, 'IQ2_XXS', 256, 66],
      [17, 'IQ2_XS', 256, 74],
      [18, 'IQ3_XXS', 256, 98],
      [19, 'IQ1_S', 256, 50],
      [20, 'IQ4_NL', 32, 18],
      [21, 'IQ3_S', 256, 110],
      [22, 'IQ2_S', 256, 82],
      [23, 'IQ4_XS', 256, 136],
      [24, 'I8', 1, 1],
      [25, 'I16', 1, 2],
      [26, 'I32', 1, 4],
      [27, 'I64', 1, 8],
      [28, 'F64', 1, 8],
      [29, 'IQ1_M', 256, 56],
      [30, 'BF16', 1, 2],
      [34, 'TQ1_0', 256, 54],
      [35, 'TQ2_0', 256, 66],
      [39, 'MXFP4', 32, 17],
      [40, 'NVFP4', 64, 36],
      [41, 'Q1_0', 128, 18],
      [42, 'Q2_0', 64, 18],
    ] as const
  ).map(([id, name, blockElements, blockBytes]) => [id, { name, blockElements, blockBytes }]),
);

/** The types that darkroom writes, with the numbers of `tensorTypes`. */
export const writtenTypes = { F32: 0, F16: 1, Q8_0: 8, BF16: 30 } as const;
export type WrittenType = keyof typeof writtenTypes;

const writtenSizes = { F32: [1, 4], F16: [1, 2], Q8_0: [32, 34], BF16: [1, 2] } as const;

/** Bytes of so many elements, whole blocks of them. */
export function writtenBytes(type: WrittenType, elements: number): number {
  const [blockElements, blockBytes] = writtenSizes[type];
  return (elements / blockElements) * blockBytes;
}

/** The next offset that is a multiple of the alignment. */
export function aligned(offset: number, alignment = GGUF_ALIGNMENT): number {
  return Math.ceil(offset / alignment) * alignment;
}
