import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import type { AssetStore, StoredObject } from './asset-store.js';
import { objectPath } from './object-path.js';
import { putWithRetries } from './put-with-retries.js';
import { storageError } from './storage-error.js';

const MAX_ANSWER_CHARACTERS = 300;

export interface SupabaseStoreOptions {
  /** URL of the project, for example https://abc.supabase.co. */
  readonly url: string;
  readonly serviceKey: string;
  /** Validity of signed URLs. 0: public URLs, for public buckets. */
  readonly signedUrlSeconds: number;
  /** Time limit for one request. */
  readonly timeoutMs: number;
}

/** Supabase Storage over its REST. https://supabase.com/docs/guides/storage */
export class SupabaseStore implements AssetStore {
  readonly kind = 'supabase';
  readonly #options: SupabaseStoreOptions;
  readonly #base: string;

  constructor(options: SupabaseStoreOptions) {
    this.#options = options;
    this.#base = `${options.url.replace(/\/+$/, '')}/storage/v1`;
  }

  async put(object: StoredObject, signal: AbortSignal): Promise<string> {
    const path = objectPath(object.bucket, object.key);
    await putWithRetries(
      (attempt) =>
        this.#ask(`object/${path}`, attempt, {
          headers: {
            'content-type': object.contentType,
            'content-length': String(object.sizeBytes),
            'cache-control': 'max-age=31536000',
            // The same key is the same file, so storing it again is no conflict.
            'x-upsert': 'true',
          },
          body: Readable.toWeb(createReadStream(object.path)) as ReadableStream<Uint8Array>,
        }),
      signal,
    );
    const { signedUrlSeconds } = this.#options;
    if (signedUrlSeconds === 0) return `${this.#base}/object/public/${path}`;
    const answer = await putWithRetries(
      (attempt) =>
        this.#ask(`object/sign/${path}`, attempt, {
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ expiresIn: signedUrlSeconds }),
        }),
      signal,
    );
    const signed = z.object({ signedURL: z.string() }).safeParse(answer);
    if (!signed.success) throw new InferenceError('STORAGE_FAILED', `Supabase did not sign the URL of ${path}`);
    return `${this.#base}/${signed.data.signedURL.replace(/^\/+/, '')}`;
  }

  async #ask(
    path: string,
    signal: AbortSignal,
    { headers, body }: { readonly headers: Record<string, string>; readonly body: string | ReadableStream<Uint8Array> },
  ): Promise<unknown> {
    const { serviceKey, timeoutMs } = this.#options;
    const request = {
      method: 'POST',
      headers: { ...headers, authorization: `Bearer ${serviceKey}`, apikey: serviceKey },
      body,
      // Node's fetch requires this for bodies that are streams.
      duplex: 'half',
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    };
    const response = await fetch(`${this.#base}/${path}`, request as RequestInit).catch((error: unknown) => {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      throw storageError(`Supabase Storage did not accept ${path}`, cause);
    });
    const text = await response.text();
    if (!response.ok) {
      const hint = response.status === 404 ? '; is there a bucket of that name?' : '';
      throw new InferenceError(
        'STORAGE_FAILED',
        `Supabase Storage answered ${response.status} to ${path}: ${text.slice(0, MAX_ANSWER_CHARACTERS)}${hint}`,
      );
    }
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  }
}
