import { createReadStream } from 'node:fs';
import type { S3Client } from '@aws-sdk/client-s3';
import { InferenceError } from '../errors.js';
import type { AssetStore, StoredObject } from './asset-store.js';
import { objectPath } from './object-path.js';
import { putWithRetries } from './put-with-retries.js';
import { storageError } from './storage-error.js';

export interface S3StoreOptions {
  /** One for all job types: names of buckets in S3 have no "_", so the job type is the first part of the key. */
  readonly bucket: string;
  readonly region: string;
  /** Of a store that is not AWS; omitted: AWS. */
  readonly endpoint?: string | undefined;
  /** What stands before the key in URLs; omitted: the endpoint and the bucket. */
  readonly baseUrl?: string | undefined;
  /** For one request. */
  readonly timeoutMs: number;
}

/** Anything that speaks S3. Credentials are found as the AWS SDK finds them. */
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
      // Its own retries leave streams out.
      maxAttempts: 1,
      // Stores other than AWS seldom have a name for each bucket.
      ...(options.endpoint !== undefined && { endpoint: options.endpoint, forcePathStyle: true }),
    });
  }

  /** @throws InferenceError INVALID_REQUEST when the SDK is not installed */
  static async create(options: S3StoreOptions): Promise<S3Store> {
    const sdk = await import('@aws-sdk/client-s3').catch((cause: unknown) => {
      throw new InferenceError(
        'INVALID_REQUEST',
        'files cannot go to S3: the package @aws-sdk/client-s3 is not installed. Run: npm install @aws-sdk/client-s3',
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
          // The store refuses what arrives otherwise.
          ChecksumSHA256: object.sha256.toString('base64'),
        }),
        { abortSignal: AbortSignal.any([attempt, AbortSignal.timeout(timeoutMs)]) },
      );
    try {
      await putWithRetries(store, signal);
    } catch (error) {
      throw storageError(`S3 did not take ${bucket}/${key}`, error);
    }
    return `${this.#baseUrl}/${objectPath(key)}`;
  }

  get #baseUrl(): string {
    const { bucket, region, endpoint, baseUrl } = this.#options;
    const own = endpoint === undefined ? `https://${bucket}.s3.${region}.amazonaws.com` : `${endpoint}/${bucket}`;
    return (baseUrl ?? own).replace(/\/+$/, '');
  }
}

/** What goes wrong is told by the error. */
function nothing(): void {}
