import { createHash } from 'node:crypto';
import { type DarkroomClient, loadModel } from '../client/client.js';
import { InferenceError } from '../errors.js';
import { ExpiringMap } from '../std/expiring-map.js';
import { ANSWER_MS } from './callers.js';

/** Time for which an answer counts, in ms. */
const VALID_MS = 60_000;

/**
 * Says whether a token has the scope admin. The API has no method that says so; LoadModel needs that scope, and does nothing for a
 * model without a name.
 */
export class AdminCheck {
  readonly #admins = new ExpiringMap<string, true>(256, VALID_MS);

  /** @throws InferenceError that the server sent for the token: PERMISSION_DENIED, UNAUTHENTICATED */
  async assertAdmin(client: DarkroomClient): Promise<void> {
    const key = createHash('sha256')
      .update(JSON.stringify(client.metadata.get('authorization')))
      .digest('hex');
    if (this.#admins.has(key)) return;
    try {
      await loadModel(client, '', ANSWER_MS);
    } catch (error) {
      if (!(error instanceof InferenceError) || error.reason !== 'MODEL_NOT_FOUND') throw error;
    }
    this.#admins.set(key, true);
  }
}
