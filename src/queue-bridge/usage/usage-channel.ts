import { webhookId } from '../callback/webhook-id.js';
import type { OutboxChannel } from '../outbox.js';
import type { JobQueue, UsageDelivery } from '../queue/job-queue.js';

/** Usage records of jobs. */
export function usageChannel(queue: JobQueue): OutboxChannel<UsageDelivery> {
  return {
    destination: 'usage',
    take: (token, most, leaseMs) => queue.takeUsage(token, most, leaseMs),
    settle: (delivery, settlement) => queue.settleUsage(delivery, settlement),
    messageOf: ({ id, run, body }) => ({ id: webhookId(id, run, 'usage'), body }),
  };
}
