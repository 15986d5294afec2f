import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';

/** Stack of a call: graphs are deep. */
const STACK_BYTES = 8 * 2 ** 20;

/** What the thread runs: a function that takes pointers and returns one, called as often as it is asked to. */
const PROGRAM = `
  const { parentPort, workerData } = require('node:worker_threads');
  const koffi = require(workerData.koffi);
  koffi.config({ sync_stack_size: workerData.stackBytes });
  // Its memory for calls is made with the first library of a thread; without one, calls crash. Held, as its objects are collected.
  globalThis.program = koffi.load(null);
  const prototypes = new Map();
  const ofArity = (count) => {
    if (!prototypes.has(count)) prototypes.set(count, koffi.proto('void *', new Array(count).fill('void *')));
    return prototypes.get(count);
  };
  parentPort.on('message', ({ id, address, pointers }) => {
    parentPort.postMessage({ id, result: koffi.call(address, ofArity(pointers.length), ...pointers) });
  });
`;

interface Answer {
  readonly id: number;
  readonly result: bigint | null;
}

/**
 * A thread of its own for calls that must all come from one. Koffi's asynchronous calls take whichever of libuv's four threads is free,
 * and ONNX Runtime makes CUDA's handles anew for every thread that a session is run on: with an H100 a session's first run on each of the
 * four took 230 ms longer, and each kept its memory.
 * Calls wait for each other. The thread does not keep the process alive between calls.
 */
export class CallThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve(result: bigint | null): void; reject(error: Error): void }>();
  #calls = 0;

  constructor() {
    // The program is text, so that it is the same from source and built.
    this.#worker = new Worker(PROGRAM, {
      eval: true,
      workerData: { koffi: createRequire(import.meta.url).resolve('koffi'), stackBytes: STACK_BYTES },
    });
    this.#worker.on('message', ({ id, result }: Answer) => this.#settle(id)?.resolve(result));
    this.#worker.on('error', (error) => {
      for (const id of [...this.#waiting.keys()]) this.#settle(id)?.reject(error);
    });
    this.#worker.unref();
  }

  /**
   * Calls the function at an address of this process.
   * @param pointers its parameters; what they point to must stay until the call has ended
   * @returns the pointer that it returns
   */
  call(address: bigint, pointers: readonly bigint[]): Promise<bigint | null> {
    const id = this.#calls++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ id, address, pointers });
    });
  }

  #settle(id: number) {
    const call = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#worker.unref();
    return call;
  }
}
