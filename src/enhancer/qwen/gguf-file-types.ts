/**
 * Storage types of a whole file's matrices, and the number of each in `general.file_type`.
 * https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/docs/gguf.md#general-metadata
 */
export const ggufFileTypes = { f32: 0, f16: 1, q8_0: 7, bf16: 32 } as const;
export type GgufFileType = keyof typeof ggufFileTypes;

/** Types that a Qwen folder can be converted to, the default first. */
export const ggufTypes = ['q8_0', 'f16', 'bf16', 'f32'] as const satisfies readonly GgufFileType[];
