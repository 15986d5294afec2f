import { isCuda, type Precision, type Provider } from '../device.js';
import { type ComputeType, type Fusion, fusions, type HalfType } from '../graph/dialect.js';
import { measureCard } from './device-memory.js';
import type { QuantisedLinears } from './model-cache/quantised-linears.js';
import { areSumsRight, isFusedAttentionRight, type RightOps, rightFusions, rightOps } from './op-probes.js';
import { computeTypes, convolutionsOf, type Dialects, dialectsIn } from './precision.js';
import type { RunTurns } from './run-turns.js';
import { openRuntime, type Runtime, type RuntimeOptions } from './runtime.js';
import type { RuntimeName } from './runtime-names.js';
import type { SessionCache, SessionDevice } from './session.js';

/** The device of all sessions of an engine process, and the dialects of their graphs. Chosen once, when the engine starts. */
export interface Backend extends SessionDevice {
  readonly runtime: Runtime;
  /** Turns on a device that other processes use as well. Omitted: none are taken. */
  readonly turns?: RunTurns | undefined;
  /** Memory of the card, on CUDA. Omitted: not known. */
  readonly cardBytes?: number | undefined;
  /** Linear layers in 8 bits, on the CPU. Omitted: they compute in float32. */
  readonly quantised?: QuantisedLinears | undefined;
  /** @param halves half types that the network bears */
  dialectsOf(halves: readonly HalfType[]): Dialects;
}

export interface BackendOptions extends RuntimeOptions {
  readonly provider: Provider;
  /** Omitted: 0, the first card. */
  readonly deviceId?: number | undefined;
  /** Omitted: 0. */
  readonly threads?: number | undefined;
  /** Omitted: `auto`. */
  readonly runtime?: RuntimeName | undefined;
  /** As `SessionDevice` has it. */
  readonly tf32?: boolean | undefined;
  /** As `Backend` has it. */
  readonly turns?: RunTurns | undefined;
  /** As `SessionDevice` has it. */
  readonly memoryLimitBytes?: number | undefined;
  /** As `SessionDevice` has it. */
  readonly packsWeights?: boolean | undefined;
  /** As `SessionDevice` has it. */
  readonly cache?: SessionCache | undefined;
  /** Omitted: `auto`. */
  readonly precision?: Precision | undefined;
  /** As `Backend` has it; without effect on other providers. */
  readonly quantised?: QuantisedLinears | undefined;
  /** True: on CUDA those ops are fused that are found right. Omitted: false, none. */
  readonly fuses?: boolean | undefined;
}

/**
 * Chooses the dialects of a provider. WebGPU's attention program returns wrong numbers on some adapters without an error (seen on
 * SwiftShader and lavapipe from 32 tokens on), and half precision may be coarser than it should be: so each type is probed on the
 * device before it is used. The CPU provider, which the tests compare with the references, is not.
 */
export async function openBackend({
  provider,
  deviceId = 0,
  threads = 0,
  precision = 'auto',
  fuses = false,
  turns,
  quantised,
  runtime,
  providerLibrary,
  ...settings
}: BackendOptions): Promise<Backend> {
  const device = { ...settings, provider, deviceId, threads, runtime: await openRuntime(runtime, { providerLibrary }) };
  // The driver answers while ops are probed.
  const card = isCuda(provider) ? measureCard(deviceId) : undefined;
  const types = computeTypes(provider, precision);
  const measured = new Map<ComputeType, RightOps>();
  const candidates = fuses ? fusionsOf(device) : [];
  // The widest first: a narrower type has the same program of attention, which some adapters compile for a minute.
  let mayFuse = true;
  for (const type of types.toReversed()) {
    const found = await measure(device, type, { mayFuse, candidates });
    mayFuse = found.attention;
    measured.set(type, found);
  }
  // Nothing is wider than float32: it is used whatever its sums were found to be.
  const right = types.filter((type) => type === 'f32' || measured.get(type)?.sums);
  const convolutions = convolutionsOf(provider);
  const spelled = (type: ComputeType) => {
    const { attention = false, fusions = [] } = measured.get(type) ?? {};
    return { attention: attention ? 'fused' : 'chunked', convolutions, fusions } as const;
  };
  const dialectsOf = dialectsIn(right, spelled);
  return {
    ...device,
    turns,
    cardBytes: (await card)?.totalBytes,
    quantised: provider === 'cpu' ? quantised : undefined,
    dialectsOf,
  };
}

/** @param mayFuse false: fused attention is known to be wrong */
async function measure(
  device: SessionDevice,
  compute: ComputeType,
  { mayFuse, candidates }: { readonly mayFuse: boolean; readonly candidates: readonly Fusion[] },
): Promise<RightOps> {
  const { provider } = device;
  if (provider === 'cpu') return { attention: true, sums: true, fusions: [] };
  // None has a kernel for bfloat16.
  const fused = compute === 'bf16' ? [] : candidates;
  const atOnce = provider === 'cuda' ? await rightOps(device, compute, fused) : undefined;
  if (atOnce !== undefined) return { ...atOnce, attention: mayFuse && atOnce.attention };
  return {
    attention: mayFuse && (await isFusedAttentionRight(device, compute)),
    sums: await areSumsRight(device, compute),
    fusions: await rightFusions(device, compute, fused),
  };
}

/** Only CUDA has the ops, and only the native runtime can keep channels last, without which fused norms cost more than they save. */
function fusionsOf({ provider, runtime }: SessionDevice): readonly Fusion[] {
  return provider === 'cuda' && runtime?.name === 'native' ? fusions : [];
}
