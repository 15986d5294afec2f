import type { PrecisionName } from '../device.js';

/** A type that takes half of float32's bytes. */
export type HalfType = 'f16' | 'bf16';

/** The type that a graph computes in. */
export type ComputeType = 'f32' | HalfType;

/**
 * Ops that do in one what a graph spells in several, of ONNX Runtime's CUDA provider only. `groupNorm`: a group norm and the SiLU behind it,
 * over channels that lie last. `geglu`: a bias, the halving, GELU and the product of a gated feed-forward. `biasAdd`: the bias of a linear
 * layer and what its result is added to. `biasGelu`: the bias of a linear layer and the tanh approximation of GELU. A Gemm of that provider
 * adds a bias in a run of its own.
 */
export const fusions = ['groupNorm', 'geglu', 'biasAdd', 'biasGelu'] as const;
export type Fusion = (typeof fusions)[number];

/** The spelling of graphs for one network on one provider. */
export interface Dialect {
  /**
   * `fused`: com.microsoft.MultiHeadAttention, blocked, never holds the score matrix.
   * `chunked`: MatMul, Softmax, MatMul over a few queries at a time; right on every provider, holds a part of the score matrix.
   * `decomposed`: the same over all queries at once.
   */
  readonly attention: 'fused' | 'chunked' | 'decomposed';
  /**
   * Weights, constants and float inputs are cast to this type; every result has the type of its inputs. A network keeps the values
   * that half precision is too coarse or too narrow for in float32 (`Graph.wide`).
   */
  readonly compute: ComputeType;
  /**
   * For a half type: every op computes in float32, and its result is rounded to the half type. That is what a device with float32
   * sums gives. The CPU provider's own half precision is not: it keeps float32 from op to op.
   */
  readonly emulated?: boolean;
  /**
   * `blocked`: the provider keeps the channels of an image together in blocks while it convolves, and so copies what goes into a
   * convolution and what comes out of it. The graph is the same; it takes more memory. Omitted: `plain`.
   */
  readonly convolutions?: 'plain' | 'blocked';
  /** Ops that are spelled as one. Omitted: none. */
  readonly fusions?: readonly Fusion[];
}

/** The dialect of graphs that are only inspected, and of the CPU. */
export const defaultDialect: Dialect = { attention: 'fused', compute: 'f32' };

/** Names of the compute types for people. */
export const precisionNames: Readonly<Record<ComputeType, PrecisionName>> = { f32: 'fp32', f16: 'fp16', bf16: 'bf16' };
