/** A file to store. */
export interface StoredObject {
  /** One of the job types. */
  readonly bucket: string;
  /** `{user}/{job}/{index}.{ext}`: the same file always has the same name, so storing it again replaces it. */
  readonly key: string;
  /** Where it is now. */
  readonly path: string;
  readonly contentType: string;
  readonly sizeBytes: number;
  /** 32 bytes. */
  readonly sha256: Buffer;
}

/** Where files of jobs go. */
export interface AssetStore {
  readonly kind: 'local' | 'supabase' | 's3';
  /**
   * Stores a file whole or not at all, in place of one of the same name.
   * @returns the URL that callers get
   * @throws InferenceError STORAGE_FAILED
   */
  put(object: StoredObject, signal: AbortSignal): Promise<string>;
}
