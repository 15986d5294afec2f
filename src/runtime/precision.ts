import type { Precision, Provider } from '../device.js';
import { type ComputeType, type Dialect, type HalfType, precisionNames } from '../graph/dialect.js';

/** The dialects that a network may be opened in, the narrowest first. */
export type Dialects = readonly [Dialect, ...Dialect[]];

/** The order in which a network is tried: float16 is eight times as exact as bfloat16 but ends at 65504. */
const LADDER: readonly ComputeType[] = ['f16', 'bf16', 'f32'];

/**
 * Types that a provider computes in. The CPU's float16 kernels are float32 ones between casts: no faster. WebGPU sums in float16.
 * CUDA's kernels: https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md
 */
const COMPUTED: Readonly<Record<Provider, readonly ComputeType[]>> = {
  cpu: ['f32'],
  webgpu: ['f16', 'f32'],
  cuda: ['f16', 'bf16', 'f32'],
  tensorrt: ['f16', 'f32'],
};

/** What `auto` begins with. */
const AUTO: Readonly<Record<Provider, ComputeType>> = { cpu: 'f32', webgpu: 'f32', cuda: 'f16', tensorrt: 'f16' };

/** Types that a provider is asked for under a precision, the narrowest first; the last one is float32. */
export function computeTypes(provider: Provider, precision: Precision): readonly ComputeType[] {
  const first = LADDER.find((type) => precisionNames[type] === precision) ?? AUTO[provider];
  return LADDER.slice(LADDER.indexOf(first)).filter((type) => COMPUTED[provider].includes(type));
}

/**
 * The dialects that networks may be opened in, by the half types that a network bears.
 * @param types of the provider, the last one float32
 * @param spelled what else the provider's graphs have, in each type
 */
export function dialectsIn(
  types: readonly ComputeType[],
  spelled: (compute: ComputeType) => Omit<Dialect, 'compute'>,
): (halves: readonly HalfType[]) => Dialects {
  return (halves) => {
    const borne = types.filter((type) => type === 'f32' || halves.includes(type));
    const dialects = borne.map((compute): Dialect => ({ ...spelled(compute), compute }));
    return dialects as [Dialect, ...Dialect[]];
  };
}

/**
 * The CPU's kernels for x86 convolve over blocks of 8 or 16 channels.
 * https://github.com/microsoft/onnxruntime/blob/v1.30.0/onnxruntime/core/optimizer/nchwc_transformer.cc
 */
export function convolutionsOf(provider: Provider): NonNullable<Dialect['convolutions']> {
  return provider === 'cpu' && process.arch === 'x64' ? 'blocked' : 'plain';
}

/** The dialects that a provider is expected to take, without a device to ask: attention fused, sums right. */
export function expectedDialects(provider: Provider, precision: Precision): (halves: readonly HalfType[]) => Dialects {
  const spelled = { attention: 'fused', convolutions: convolutionsOf(provider) } as const;
  return dialectsIn(computeTypes(provider, precision), () => spelled);
}
