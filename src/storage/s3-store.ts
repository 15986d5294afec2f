import { createReadStream } from 'node:fs';
import type { S3Client } from '@aws-sdk/client-s3';
import { InferenceError } from '../errors.js';
import type { AssetStore, StoredObject } from './asset-store.js';
import { objectPath } from './object-path.js';
import { putWithRetries } from './put-with-retries.js';
import { storageError } from './storage-error.js';

export interface S3StoreOptions {
  /** Bucket for all job types. S3 does not allow "_" in bucket names, so the job type is the first part of the key. */
  readonly bucket: string;
  readonly region: string;
  /** URL of a store other than AWS. Omitted: AWS. */
  readonly endpoint?: string | undefined;
  /** Start of the URLs, before the key. Omitted: the endpoint and the bucket. */
  readonly baseUrl?: string | undefined;
  /** Time limit for one request. */
  readonly timeoutMs: number;
}

/** Any S3-compatible store. The AWS SDK finds the credentials. */
export class S3Store implements AssetStore {
  readonly kind = 's3';
  readonly #sdk: typeof import('@aws-sdk/client-s3');
  readonly #client: S3Client;
  readonly #options: S3StoreOptions;

  private constructor(sdk: typeof import('@aws-sdk/client-s3'), options: S3StoreOptions) {
    this.#sdk = sdk;
    this.#options = options;
    this.#client = new sdk.S3Client({
      region: options.region,
      logger: { debug: nothing, info: nothing, warn: nothing, error: nothing },
      // The SDK does not retry streams.
      maxAttempts: 1,
      // Stores other than AWS seldom have a host name per bucket.
      ...(options.endpoint !== undefined && { endpoint: options.endpoint, forcePathStyle: true }),
    });
  }

  /** @throws InferenceError INVALID_REQUEST when the SDK is not installed */
  static async create(options: S3StoreOptions): Promise<S3Store> {
    const sdk = await import('@aws-sdk/client-s3').catch((cause: unknown) => {
      throw new InferenceError(
        'INVALID_REQUEST',
        'S3 needs the package @aws-sdk/client-s3, which is not installed. Run: npm install @aws-sdk/client-s3',
        { cause },
      );
    });
    return new S3Store(sdk, options);
  }

  async put(object: StoredObject, signal: AbortSignal): Promise<string> {
    const { bucket, timeoutMs } = this.#options;
    const key = `${object.bucket}/${object.key}`;
    const store = (attempt: AbortSignal) =>
      this.#client.send(
        new this.#sdk.PutObjectCommand({
          Bucket: bucket,
          Key: key,
          Body: createReadStream(object.path),
          ContentLength: object.sizeBytes,
          ContentType: object.contentType,
          // The store rejects a file that arrives damaged.
          ChecksumSHA256: object.sha256.toString('base64'),
        }),
        { abortSignal: AbortSignal.any([attempt, AbortSignal.timeout(timeoutMs)]) },
      );
    try {
      await putWithRetries(store, signal);
    } catch (error) {
      throw storageError(`S3 rejected ${bucket}/${key}`, error);
    }
    return `${this.#baseUrl}/${objectPath(key)}`;
  }

  get #baseUrl(): string {
    const { bucket, region, endpoint, baseUrl } = this.#options;
    const own = endpoint === undefined ? `https://${bucket}.s3.${region}.amazonaws.com` : `${endpoint}/${bucket}`;
    return (baseUrl ?? own).replace(/\/+$/, '');
  }
}

/** The SDK need not log: every failure is thrown. */
function nothing(): void {}
