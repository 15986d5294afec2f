/** The type that a graph computes in. */
export type ComputeType = 'f32' | 'f16' | 'bf16';

/** The spelling of graphs for one provider. */
export interface Dialect {
  /**
   * `fused`: com.microsoft.MultiHeadAttention, blocked, never holds the score matrix.
   * `decomposed`: MatMul, Softmax, MatMul; right on every provider, but holds the score matrix.
   */
  readonly attention: 'fused' | 'decomposed';
  /** Weights, constants and float inputs are cast to this type; every result has the type of its inputs. */
  readonly compute: ComputeType;
}

/** The dialect of graphs that are only inspected, and of the CPU. */
export const defaultDialect: Dialect = { attention: 'fused', compute: 'f32' };
