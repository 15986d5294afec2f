import { InferenceError } from '../errors.js';
import { type OrtLibrary, openOrtLibrary } from './native/ort-library.js';
import type { RuntimeName } from './runtime-names.js';

export interface RuntimeOptions {
  /** Library of a provider that ONNX Runtime loads in place of its own. Omitted: none. */
  readonly providerLibrary?: string | undefined;
}

/** An implementation that opened, chosen once, when the process starts. */
export type Runtime = RuntimeOptions & (NativeRuntime | BindingRuntime);

interface NativeRuntime {
  readonly name: 'native';
  readonly library: OrtLibrary;
}

interface BindingRuntime {
  readonly name: 'binding';
  /** Reason why the native one was not taken, where `auto` would have. */
  readonly reason?: string;
}

/**
 * Chooses the implementation of sessions. `auto` takes the native one where it opens.
 * @throws InferenceError PROVIDER_UNAVAILABLE if `native` does not open, or the binding is to load a provider
 */
export async function openRuntime(name: RuntimeName = 'auto', options: RuntimeOptions = {}): Promise<Runtime> {
  const { providerLibrary } = options;
  if (name === 'binding') {
    if (providerLibrary === undefined) return { name };
    throw new InferenceError(
      'PROVIDER_UNAVAILABLE',
      `PROVIDER_LIBRARY ${providerLibrary} needs the native runtime; set RUNTIME=native`,
    );
  }
  try {
    return { name: 'native', library: await openOrtLibrary(), providerLibrary };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (name === 'auto' && providerLibrary === undefined) return { name: 'binding', reason };
    throw new InferenceError(
      'PROVIDER_UNAVAILABLE',
      `the native runtime does not open: ${reason}; run npm ci again, or set RUNTIME=binding`,
      { cause: error },
    );
  }
}
