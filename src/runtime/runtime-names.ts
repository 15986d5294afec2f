/** Implementations of sessions. `native`: ONNX Runtime's C API. `binding`: onnxruntime-node. `auto`: the native one where it opens. */
export const runtimeNames = ['auto', 'native', 'binding'] as const;
export type RuntimeName = (typeof runtimeNames)[number];
