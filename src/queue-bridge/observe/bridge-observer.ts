import type { ErrorReason } from '../../errors.js';
import type { Logger } from '../../log.js';
import { dispatchTo } from '../../observe/dispatch.js';
import type { Admitted, DueDelivery, Finish, Lease, Settlement } from '../queue/job-queue.js';

/** Where an outbox delivers to. */
export type Destination = 'callback' | 'usage';

/** How a bridge found that it has lost a lease. `fenced`: the store rejected a write. */
export type LeaseLoss = 'renewal' | 'fenced';

/** Steps of an attempt that are timed. */
export type Step = 'generate' | 'store';

/** What a bridge reports about its work. Methods return at once and do not throw. */
export interface BridgeObserver {
  /** @param type job type; undefined for a payload without a usable id */
  payloadAdmitted(result: Admitted, type: string | undefined): void;
  jobClaimed(lease: Lease): void;
  stepEnded(lease: Lease, step: Step, ms: number): void;
  leaseLost(lease: Lease, how: LeaseLoss): void;
  /** The job returns to the queue. @param reason undefined: the bridge stops */
  jobReleased(lease: Lease, reason: ErrorReason | undefined): void;
  jobEnded(lease: Lease, state: Finish['state'], reason: ErrorReason | undefined): void;
  deliveryEnded(destination: Destination, settlement: Settlement, delivery: DueDelivery): void;
}

const METHODS = [
  'payloadAdmitted',
  'jobClaimed',
  'stepEnded',
  'leaseLost',
  'jobReleased',
  'jobEnded',
  'deliveryEnded',
] as const satisfies readonly (keyof BridgeObserver)[];

/** One observer for several. */
export function bridgeObserver(observers: readonly Partial<BridgeObserver>[], log: Logger): BridgeObserver {
  return dispatchTo<BridgeObserver>(observers, METHODS, log);
}
