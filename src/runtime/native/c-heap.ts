import { promisify } from 'node:util';

/** Parameters of glibc's mallopt. https://sourceware.org/git/?p=glibc.git;a=blob;f=malloc/malloc.h */
const TRIM_THRESHOLD = -1;
const MMAP_THRESHOLD = -3;
const MMAP_MAX = -4;

/** Where glibc's thresholds, which follow what is freed, end on 64 bits; and its own largest number of mappings. */
const LARGEST_MMAP_THRESHOLD = 32 * 2 ** 20;
const LARGEST_TRIM_THRESHOLD = 2 * LARGEST_MMAP_THRESHOLD;
const DEFAULT_MMAP_MAX = 65_536;

type Koffi = typeof import('koffi')['default'];

/** The heap of the C library, from which ONNX Runtime allocates. Does nothing where the C library is not glibc. */
export class CHeap {
  readonly #trim: (() => Promise<unknown>) | undefined;
  readonly #set: ((parameter: number, value: number) => number) | undefined;
  /** Work that keeps freed memory now. */
  #keeping = 0;

  constructor({ load }: Koffi) {
    try {
      const libc = load('libc.so.6');
      const trim = promisify(libc.func('malloc_trim', 'int', ['size_t']).async) as (pad: number) => Promise<unknown>;
      this.#trim = () => trim(0);
      this.#set = libc.func('mallopt', 'int', ['int', 'int']);
    } catch {
      // Another C library has a heap of its own.
    }
  }

  /**
   * Returns freed memory to the system. glibc keeps it for the thread that allocated it, and sessions are loaded on several threads:
   * without this, sessions that were loaded and released in turn came to twice the memory. Loading alone frees a gigabyte of a model of
   * 14: weights as they were before they were folded.
   */
  async trim(): Promise<void> {
    await this.#trim?.();
  }

  /**
   * Keeps memory that the work frees for its next allocation, and returns it to the system at the end. A session that is loaded allocates
   * and frees a buffer for each weight; those of more than 32 MiB are mapped anew otherwise, page by page, and zeroed by the system.
   */
  async keepingFreed<T>(work: () => Promise<T>): Promise<T> {
    this.#keeping += 1;
    if (this.#keeping === 1) {
      this.#set?.(MMAP_MAX, 0);
      this.#set?.(TRIM_THRESHOLD, 2 ** 31 - 1);
    }
    try {
      return await work();
    } finally {
      this.#keeping -= 1;
      if (this.#keeping === 0) {
        this.#set?.(MMAP_MAX, DEFAULT_MMAP_MAX);
        this.#set?.(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD);
        this.#set?.(TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD);
      }
      await this.trim();
    }
  }
}
