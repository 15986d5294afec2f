import { z } from 'zod';
import { environment } from '../environment.js';
import { InferenceError } from '../errors.js';
import { isWebhookSecret } from '../std/standard-webhooks.js';
import { count } from '../std/variable-kinds.js';
import { type Lane, laneNames, lanesFrom, laneVariables } from './bridge-lanes.js';
import { clientVariables } from './client-config.js';
import { readVariables } from './read-variables.js';
import { metricsAddress, sharedVariables } from './shared-variables.js';

const httpUrl = z
  .string()
  .regex(/^https?:\/\/[^/]/, 'must begin with https:// or http://')
  .optional();
const text = z.string().min(1).optional();
const HOUR_MS = 3_600_000;

const queueVariables = {
  REDIS_URL: z
    .string()
    .regex(/^rediss?:\/\//, 'must begin with redis:// or rediss://')
    .optional()
    .describe('URL of the Redis with the queues: redis:// or rediss://, version 6.2 or newer.'),
  UPSTASH_REDIS_REST_URL: httpUrl.describe('URL of an Upstash Redis over REST. Used if REDIS_URL is unset.'),
  UPSTASH_REDIS_REST_TOKEN: text.describe('Token for UPSTASH_REDIS_REST_URL. Required with it.'),
  ...clientVariables,
  BRIDGE_PREFIX: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{0,64}$/)
    .default('darkroom:')
    .describe('Prefix of all other Redis keys.'),
  BRIDGE_SLOTS: count(4, 1, 1024).describe('Largest number of jobs that one bridge has in flight.'),
  BRIDGE_LANES: laneNames,
} as const;

const otherVariables = {
  BRIDGE_LEASE_MS: count(30_000, 1000, HOUR_MS).describe(
    'Lease length in ms. A job returns to the queue when its bridge has not renewed the lease for this long. Bridges renew it every third of this time.',
  ),
  BRIDGE_ATTEMPTS: count(3, 1, 1000).describe('Number of attempts at a job before the bridge gives it up.'),
  BRIDGE_RETRY_MS: count(2000, 10, HOUR_MS).describe(
    'Delay before the second attempt, in ms. It doubles with each further attempt.',
  ),
  BRIDGE_RETRY_MAX_MS: count(300_000, 10, 24 * HOUR_MS).describe('Upper bound of the delay between attempts, in ms.'),
  BRIDGE_PROGRESS_MS: count(1000, 100, HOUR_MS).describe(
    "Shortest time between two writes of a job's progress, in ms.",
  ),
  BRIDGE_IDLE_POLL_MS: count(10_000, 100, HOUR_MS).describe(
    'Longest time between two polls of an idle queue over REST (Upstash), in ms.',
  ),
  BRIDGE_RETENTION_MS: count(7 * 24 * HOUR_MS, 1000, 366 * 24 * HOUR_MS).describe(
    'Time in ms that an ended job stays in Redis. Until then its id does not run again.',
  ),
  BRIDGE_DRAIN_MS: count(10_000, 0, 24 * HOUR_MS).describe(
    'Time in ms that the bridge waits for running jobs after SIGTERM. Then it returns them to the queue.',
  ),
  BRIDGE_SPOOL: text.describe(
    "Folder for files that are not stored yet. Unset: the system's folder for temporary files.",
  ),
  CALLBACK_URL: httpUrl.describe(
    'URL that callbacks are sent to. Unset: SUPABASE_URL with the path /functions/v1/job-callback; without SUPABASE_URL no callbacks are sent.',
  ),
  CALLBACK_TOKEN: text.describe(
    'Bearer token of callbacks. Unset: SUPABASE_SERVICE_KEY if CALLBACK_URL follows from SUPABASE_URL, otherwise none.',
  ),
  CALLBACK_SECRET: z
    .string()
    .refine(isWebhookSecret, 'must be whsec_ and base64 of 24 to 64 bytes')
    .optional()
    .describe(
      'Secret that signs callbacks as Standard Webhooks: whsec_ and base64 of 24 to 64 bytes. Unset: callbacks are not signed.',
    ),
  CALLBACK_TIMEOUT_MS: count(10_000, 100, 600_000).describe(
    'Time limit for one delivery attempt of a callback, in ms.',
  ),
  CALLBACK_RETRY_MS: count(1000, 10, HOUR_MS).describe(
    'Delay before the second delivery attempt, in ms. It doubles with each further attempt.',
  ),
  CALLBACK_RETRY_MAX_MS: count(900_000, 10, 24 * HOUR_MS).describe(
    'Upper bound of the delay between delivery attempts, in ms.',
  ),
  CALLBACK_MAX_AGE_MS: count(24 * HOUR_MS, 1000, 366 * 24 * HOUR_MS).describe(
    'Age in ms after which a callback that still fails is given up.',
  ),
  CALLBACK_CONCURRENCY: count(8, 1, 1024).describe(
    'Largest number of callbacks that one bridge delivers at the same time.',
  ),
  USAGE_URL: httpUrl.describe('URL that a usage record of every job is sent to. Unset: none is sent.'),
  USAGE_TOKEN: text.describe('Bearer token of usage records. Unset: none.'),
  USAGE_SECRET: z
    .string()
    .refine(isWebhookSecret, 'must be whsec_ and base64 of 24 to 64 bytes')
    .optional()
    .describe('Secret that signs usage records, in the form of CALLBACK_SECRET. Unset: they are not signed.'),
  BRIDGE_METRICS_LISTEN: metricsAddress(9465).describe(
    'Address that the bridge serves its metrics on over HTTP, host:port. off: none.',
  ),
  STORAGE: z
    .enum(['auto', 'local', 'supabase', 's3'])
    .default('auto')
    .describe(
      'Where files are stored. auto: Supabase if SUPABASE_URL and SUPABASE_SERVICE_KEY are set, S3 if S3_BUCKET is set, otherwise a local folder.',
    ),
  STORAGE_FOLDER: z.string().min(1).default('out').describe('Folder of the local storage.'),
  STORAGE_BASE_URL: httpUrl.describe(
    "Start of the URLs of files in local storage and S3. Unset: file:// URLs for local storage, the bucket's own URLs for S3.",
  ),
  STORAGE_TIMEOUT_MS: count(120_000, 100, HOUR_MS).describe('Time limit for one request to Supabase or S3, in ms.'),
  SUPABASE_URL: httpUrl.describe('URL of the Supabase project.'),
  SUPABASE_SERVICE_KEY: text.describe('Service key of the Supabase project.'),
  SUPABASE_SIGNED_URL_S: count(0, 0, 366 * 24 * 3600).describe('Validity of signed URLs in seconds. 0: public URLs.'),
  S3_BUCKET: text.describe('S3 bucket for all files. The job type is the first part of each key.'),
  S3_REGION: z.string().min(1).default('us-east-1').describe('Region of the S3 bucket.'),
  S3_ENDPOINT: httpUrl.describe('URL of an S3-compatible store. Unset: AWS.'),
  ...sharedVariables,
} as const;

/** Every variable of a bridge with these lanes, with default and bounds. */
function bridgeConfigSchemaOf(lanes: readonly string[]) {
  return z.object({ ...queueVariables, ...(laneVariables(lanes) as object), ...otherVariables });
}

/** Every variable of a bridge with the default lanes. */
export const bridgeConfigSchema = bridgeConfigSchemaOf(laneNames.parse(undefined));

export type BridgeConfig = Readonly<z.infer<typeof bridgeConfigSchema>> & {
  /** In the order of BRIDGE_LANES; at least one. */
  readonly lanes: readonly [Lane, ...Lane[]];
};

/**
 * @param overrides values of the command line; they win over the environment
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readBridgeConfig(
  env: NodeJS.ProcessEnv = environment(),
  overrides: Readonly<Record<string, string>> = {},
): BridgeConfig {
  const variables = { ...env, ...overrides };
  // Bad names are reported below, together with everything else.
  const names = laneNames.safeParse(variables.BRIDGE_LANES || undefined).data ?? laneNames.parse(undefined);
  const config = readVariables(bridgeConfigSchemaOf(names), variables);
  const [first, ...others] = lanesFrom(names, config);
  if (first === undefined) throw new InferenceError('INTERNAL', 'BRIDGE_LANES is empty');
  const lanes: BridgeConfig['lanes'] = [first, ...others];
  return withBridgeDefaults(Object.freeze({ ...config, lanes }));
}

/** Fills in the defaults that depend on other variables. */
function withBridgeDefaults(config: BridgeConfig): BridgeConfig {
  const { SUPABASE_URL, SUPABASE_SERVICE_KEY, CALLBACK_URL, CALLBACK_TOKEN } = config;
  if (CALLBACK_URL !== undefined || SUPABASE_URL === undefined) return config;
  return Object.freeze({
    ...config,
    CALLBACK_URL: `${SUPABASE_URL.replace(/\/+$/, '')}/functions/v1/job-callback`,
    CALLBACK_TOKEN: CALLBACK_TOKEN ?? SUPABASE_SERVICE_KEY,
  });
}
