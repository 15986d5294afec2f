import type { Device } from '../pipelines/pipeline.js';

/** How the graph spells what providers differ in. */
export interface Dialect {
  /**
   * `fused`: com.microsoft.MultiHeadAttention, blocked, never holds the score matrix.
   * `decomposed`: MatMul, Softmax, MatMul; right on every provider, but holds the score matrix.
   */
  readonly attention: 'fused' | 'decomposed';
}

/**
 * The dialect of a provider. WebGPU's attention program gives wrong numbers on some adapters without saying so (seen on
 * SwiftShader from 64 tokens on), so it is used there only where `attentionIsRight` was measured (attention-probe.ts).
 */
export function dialectFor(device: Exclude<Device, 'auto'>, attentionIsRight: boolean): Dialect {
  return { attention: device === 'webgpu' && !attentionIsRight ? 'decomposed' : 'fused' };
}
