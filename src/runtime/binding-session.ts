import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { isCuda } from '../device.js';
import {
  type DeviceTensor,
  type Feed,
  type NetworkSession,
  plansBuffers,
  type SessionPlan,
  type TensorData,
} from './network-session.js';
import { importBinding } from './onnxruntime-node.js';

/** Opens a session of onnxruntime-node, which blocks this thread for every run. */
export async function openBindingSession(plan: SessionPlan): Promise<NetworkSession> {
  const ort = await importBinding();
  const { provider, deviceId, threads, holds } = plan;
  const session: InferenceSession = await ort.InferenceSession.create(plan.model, {
    executionProviders: [isCuda(provider) ? { name: provider, deviceId } : provider],
    graphOptimizationLevel: plan.isOptimized ? 'disabled' : 'all',
    enableMemPattern: plansBuffers(plan),
    ...(plan.saveTo !== undefined && { optimizedModelFilePath: plan.saveTo }),
    ...(threads > 0 && { intraOpNumThreads: threads }),
    // Errors only: the runtime writes a warning for every node it moves between providers.
    logSeverityLevel: 3,
    ...(provider === 'webgpu' &&
      holds.size > 0 && {
        preferredOutputLocation: Object.fromEntries([...holds.keys()].map((name) => [name, 'gpu-buffer' as const])),
      }),
    extra: nested(plan.configEntries),
  });
  const tensorOf = ({ data, shape, half = 'f16' }: Feed): Tensor => {
    if (data instanceof Int32Array) return new ort.Tensor('int32', data, shape);
    if (data instanceof BigInt64Array) return new ort.Tensor('int64', data, shape);
    if (data instanceof Float32Array) return new ort.Tensor('float32', data, shape);
    if (half === 'bf16') throw new Error('the Node binding takes no bfloat16; set RUNTIME=native');
    return new ort.Tensor('float16', data, shape);
  };
  return {
    async run<T extends TensorData>(
      feeds: Readonly<Record<string, Feed>>,
      { carried, outputs: wanted = plan.outputs, signal }: Parameters<NetworkSession['run']>[1] = {},
    ) {
      signal?.throwIfAborted();
      const inputs = Object.fromEntries(Object.entries(feeds).map(([name, feed]) => [name, tensorOf(feed)]));
      const all = Object.entries((carried?.tensors ?? {}) as Readonly<Record<string, Tensor>>);
      const held = Object.fromEntries(all.filter(([name]) => plan.inputs.includes(name)));
      const outputs = Object.entries(await session.run({ ...inputs, ...held }, wanted));
      const kept = outputs.flatMap(([name, tensor]): [string, DeviceTensor][] => {
        const input = holds.get(name);
        return input === undefined ? [] : [[input, tensor as Tensor]];
      });
      carried?.replace(Object.fromEntries(kept));
      // The data of a tensor on a device must not be asked for: the runtime ends the process.
      const rest = outputs.filter(([name]) => !holds.has(name));
      return Object.fromEntries(rest.map(([name, { data }]) => [name, data as T]));
    },
    release: () => session.release(),
  };
}

/** Entries `a.b` as the binding takes them: `{ a: { b } }`. */
function nested(entries: Readonly<Record<string, string>>): Record<string, Record<string, string>> {
  const extra: Record<string, Record<string, string>> = {};
  for (const [key, value] of Object.entries(entries)) {
    const [section = '', ...rest] = key.split('.');
    extra[section] = { ...extra[section], [rest.join('.')]: value };
  }
  return extra;
}
