/** A file to store. */
export interface StoredObject {
  /** Name of the job type. */
  readonly bucket: string;
  /** `{user}/{job}/{index}.{ext}`. The same file always has the same key, so storing it again replaces it. */
  readonly key: string;
  /** Path of the local file. */
  readonly path: string;
  readonly contentType: string;
  readonly sizeBytes: number;
  /** 32 bytes. */
  readonly sha256: Buffer;
}

/** Storage for the files of jobs. */
export interface AssetStore {
  readonly kind: 'local' | 'supabase' | 's3';
  /**
   * Stores a file completely or not at all. It replaces a file of the same key.
   * @returns the URL of the file for callers
   * @throws InferenceError STORAGE_FAILED
   */
  put(object: StoredObject, signal: AbortSignal): Promise<string>;
}
