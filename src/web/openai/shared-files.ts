import { randomUUID } from 'node:crypto';
import type { DarkroomClient } from '../../client/client.js';
import { InferenceError } from '../../errors.js';
import { ExpiringMap } from '../../std/expiring-map.js';

/** Validity of a URL, in ms: that of OpenAI's. */
const VALID_MS = 3_600_000;
const MAX_URLS = 1000;

interface SharedFile {
  readonly client: DarkroomClient;
  readonly jobId: string;
  readonly index: number;
}

/** URLs of files that work without a token, because nobody can guess them. */
export class SharedFiles {
  readonly #files = new ExpiringMap<string, SharedFile>(MAX_URLS, VALID_MS);

  /** @returns the path of the file for the next hour */
  share(client: DarkroomClient, jobId: string, index: number): string {
    const id = randomUUID();
    this.#files.set(id, { client, jobId, index });
    return `/files/${id}`;
  }

  /** @throws InferenceError JOB_NOT_FOUND for an unknown or an expired URL */
  find(id: string): SharedFile {
    const file = this.#files.get(id);
    if (file !== undefined) return file;
    throw new InferenceError('JOB_NOT_FOUND', 'this URL is not valid any more; URLs are valid for an hour');
  }
}
