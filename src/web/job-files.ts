import { createHash } from 'node:crypto';
import { type DarkroomClient, getJob, watchJob } from '../client/client.js';
import { InferenceError } from '../errors.js';
import type { Asset } from '../gen/darkroom/v1/job.js';
import { sharp } from '../media/sharp.js';
import { LruMap } from '../std/lru-map.js';
import { Semaphore } from '../std/semaphore.js';
import { ANSWER_MS } from './callers.js';

/** Bytes of files that stay in memory, so that an image and its thumbnail are fetched once. */
const CACHE_BYTES = 64 * 2 ** 20;
/** Files that are read at the same time: each is in memory as a whole. */
const MAX_READS = 8;

export interface JobFile {
  readonly asset: Asset;
  readonly data: Buffer;
}

/** Reads files of jobs over the API. */
export class JobFiles {
  readonly #cache = new LruMap<string, JobFile>(CACHE_BYTES, ({ data }) => data.length);
  readonly #reads = new Map<string, Promise<JobFile>>();
  readonly #turns = new Semaphore(MAX_READS);

  /**
   * Reads one file that a job has finished.
   * @throws InferenceError JOB_NOT_FOUND if the server has no such job, or the job no such file, or not yet
   */
  async read(client: DarkroomClient, jobId: string, index: number): Promise<JobFile> {
    // Whoever may not watch the job does not get its file from the cache, either.
    const key = createHash('sha256')
      .update(JSON.stringify([client.metadata.get('authorization'), jobId, index]))
      .digest('hex');
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached;
    const running =
      this.#reads.get(key) ??
      this.#turns.run(() => this.#fetch(client, jobId, index)).finally(() => this.#reads.delete(key));
    this.#reads.set(key, running);
    const file = await running;
    this.#cache.set(key, file);
    return file;
  }

  async #fetch(client: DarkroomClient, jobId: string, index: number): Promise<JobFile> {
    const job = await getJob(client, jobId, ANSWER_MS);
    if (!job?.assets.some((asset) => asset.index === index)) throw noFile(jobId, index);
    const parts: Buffer[] = [];
    for await (const { event } of watchJob(client, jobId, 0n)) {
      if (event?.$case !== 'assetChunk' || event.value.index !== index) continue;
      parts.push(event.value.data);
      const { asset } = event.value;
      if (asset === undefined) continue;
      const data = Buffer.concat(parts);
      if (!createHash('sha256').update(data).digest().equals(asset.sha256)) {
        throw new InferenceError('INTERNAL', `file ${index} of job "${jobId}" arrived damaged: its SHA-256 differs`);
      }
      return { asset, data };
    }
    throw noFile(jobId, index);
  }
}

function noFile(jobId: string, index: number): InferenceError {
  return new InferenceError('JOB_NOT_FOUND', `job "${jobId}" has no file ${index}, or not yet`);
}

/** A WebP of an image that fits into a square. @param side of the square, in pixels */
export function thumbnail(image: Buffer, side: number): Promise<Buffer> {
  return sharp(image).resize(side, side, { fit: 'inside', withoutEnlargement: true }).webp({ quality: 80 }).toBuffer();
}
