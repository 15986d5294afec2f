import type { DarkroomClient } from '../../client/client.js';
import type { BridgeConfig } from '../../config/bridge-config.js';
import type { WebConfig } from '../../config/web-config.js';
import type { Logger } from '../../log.js';
import { type Gateway, startGateway } from '../../web/gateway.js';
import { say } from '../output/say.js';
import { openQueueOperations } from './queue-operations.js';

export interface OpenPageOptions {
  readonly config: WebConfig;
  readonly log: Logger;
  /** Closed with the page. */
  readonly client: DarkroomClient;
  /** Names the bridge's queue that the page shows. Omitted: none. */
  readonly queue?: BridgeConfig;
}

/** Serves the page and says where. @throws InferenceError INVALID_REQUEST if the address cannot be bound */
export async function openPage({ config, log, client, queue }: OpenPageOptions): Promise<Gateway> {
  const operations = queue && openQueueOperations(queue);
  const close = async () => {
    await operations?.close();
    client.close();
  };
  try {
    const gateway = await startGateway({ config, client, log, queue: operations?.operations });
    say(`the page is at ${gateway.url}`);
    return {
      url: gateway.url,
      async close() {
        await gateway.close();
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}
