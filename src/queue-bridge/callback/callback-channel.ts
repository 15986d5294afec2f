import type { OutboxChannel } from '../outbox.js';
import type { Delivery, JobQueue } from '../queue/job-queue.js';
import { processingBody } from './callback-body.js';
import { webhookId } from './webhook-id.js';

/** Callbacks of jobs. */
export function callbackChannel(queue: JobQueue): OutboxChannel<Delivery> {
  return {
    destination: 'callback',
    take: (token, most, leaseMs) => queue.takeDeliveries(token, most, leaseMs),
    settle: ({ id, token }, settlement) => queue.settle(id, token, settlement),
    messageOf: (delivery) => ({
      id: webhookId(delivery.id, delivery.run, delivery.kind),
      body: delivery.kind === 'processing' ? processingBody(delivery.id, delivery) : delivery.callback,
    }),
  };
}
