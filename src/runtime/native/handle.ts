import type { ObjectKind, OrtApi } from './ort-api.js';

/** Releases what was forgotten. It runs when the garbage collector finds it, so nothing may rely on it. */
const forgotten = new FinalizationRegistry<() => void>((release) => release());

/** An object of the library. It is released once, and cannot be used afterwards. */
export class Handle {
  readonly #kind: ObjectKind;
  readonly #release: () => void;
  #pointer: bigint | undefined;

  constructor(api: OrtApi, kind: ObjectKind, pointer: bigint) {
    this.#kind = kind;
    this.#pointer = pointer;
    this.#release = () => api.release(kind, pointer);
    forgotten.register(this, this.#release, this);
  }

  /** @throws Error after the release */
  get pointer(): bigint {
    if (this.#pointer === undefined) throw new Error(`this ${this.#kind} of ONNX Runtime was released`);
    return this.#pointer;
  }

  /** Does nothing the second time. */
  release(): void {
    if (this.#pointer === undefined) return;
    this.#pointer = undefined;
    forgotten.unregister(this);
    this.#release();
  }
}

/** Handles that are released together, the last one first. */
export class HandleScope {
  readonly #handles: Handle[] = [];

  own(handle: Handle): Handle {
    this.#handles.push(handle);
    return handle;
  }

  release(): void {
    for (const handle of this.#handles.splice(0).reverse()) handle.release();
  }
}
