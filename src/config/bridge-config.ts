import { z } from 'zod';
import { environment } from '../environment.js';
import { isWebhookSecret } from '../std/standard-webhooks.js';
import { count } from '../std/variable-kinds.js';
import { clientVariables } from './client-config.js';
import { readVariables } from './read-variables.js';
import { sharedVariables } from './shared-variables.js';

const httpUrl = z
  .string()
  .regex(/^https?:\/\/[^/]/, 'must begin with https:// or http://')
  .optional();
const text = z.string().min(1).optional();
const list = (name: string) =>
  z
    .string()
    .regex(/^[A-Za-z0-9._:-]{1,128}$/)
    .default(name);
const HOUR_MS = 3_600_000;

/** Every variable of the bridge, with default and bounds. */
export const bridgeConfigSchema = z.object({
  REDIS_URL: z
    .string()
    .regex(/^rediss?:\/\//, 'must begin with redis:// or rediss://')
    .optional()
    .describe('Redis 6.2 or newer with the queues.'),
  UPSTASH_REDIS_REST_URL: httpUrl.describe('The same over REST; used where REDIS_URL is unset.'),
  UPSTASH_REDIS_REST_TOKEN: text.describe('Token of that.'),
  DARKROOM_SERVER: clientVariables.DARKROOM_SERVER,
  BRIDGE_SDXL_QUEUE: list('sdxl_queue').describe('List that producers push SDXL jobs to.'),
  BRIDGE_WAN_QUEUE: list('wan_queue').describe('List that producers push WAN jobs to.'),
  BRIDGE_PREFIX: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{0,64}$/)
    .default('darkroom:')
    .describe('What all other keys begin with.'),
  BRIDGE_SLOTS: count(4, 1, 1024).describe('Jobs that a bridge holds at once.'),
  BRIDGE_SDXL_SLOTS: count(3, 0, 1024).describe('Of them, SDXL jobs at most; 0: none are taken.'),
  BRIDGE_WAN_SLOTS: count(3, 0, 1024).describe('Of them, WAN jobs at most; 0: none are taken.'),
  BRIDGE_SDXL_WEIGHT: count(3, 1, 1000).describe('Turns of SDXL while WAN jobs wait too.'),
  BRIDGE_WAN_WEIGHT: count(1, 1, 1000).describe('Turns of WAN while SDXL jobs wait too.'),
  BRIDGE_LEASE_MS: count(30_000, 1000, HOUR_MS).describe(
    'How long a job stays with a bridge that is not heard of, in ms; it is heard of three times as often.',
  ),
  BRIDGE_ATTEMPTS: count(3, 1, 1000).describe('Starts of a job before it is given up.'),
  BRIDGE_RETRY_MS: count(2000, 10, HOUR_MS).describe('Wait before the second attempt, doubled each time, in ms.'),
  BRIDGE_RETRY_MAX_MS: count(300_000, 10, 24 * HOUR_MS).describe('Longest such wait, in ms.'),
  BRIDGE_PROGRESS_MS: count(1000, 100, HOUR_MS).describe('Least time between two writes of a progress, in ms.'),
  BRIDGE_IDLE_POLL_MS: count(10_000, 100, HOUR_MS).describe(
    'Longest time between two looks at idle queues over REST, in ms.',
  ),
  BRIDGE_RETENTION_MS: count(7 * 24 * HOUR_MS, 1000, 366 * 24 * HOUR_MS).describe(
    'How long an ended job is remembered, so that it does not run again, in ms.',
  ),
  BRIDGE_DRAIN_MS: count(10_000, 0, 24 * HOUR_MS).describe(
    'How long SIGTERM waits for running jobs before it gives them back, in ms.',
  ),
  BRIDGE_SPOOL: text.describe("Folder for files on their way to the storage; unset: the system's for temporary files."),
  CALLBACK_URL: httpUrl.describe(
    'Where callbacks go; unset: SUPABASE_URL with /functions/v1/job-callback, else nowhere.',
  ),
  CALLBACK_TOKEN: text.describe(
    'Bearer token of callbacks; unset: SUPABASE_SERVICE_KEY where they go to SUPABASE_URL, else none.',
  ),
  CALLBACK_SECRET: z
    .string()
    .refine(isWebhookSecret, 'must be whsec_ and base64 of 24 to 64 bytes')
    .optional()
    .describe('Signs callbacks as Standard Webhooks do; unset: they are not signed.'),
  CALLBACK_TIMEOUT_MS: count(10_000, 100, 600_000).describe('For one try of a callback, in ms.'),
  CALLBACK_RETRY_MS: count(1000, 10, HOUR_MS).describe('Wait before the second try, doubled each time, in ms.'),
  CALLBACK_RETRY_MAX_MS: count(900_000, 10, 24 * HOUR_MS).describe('Longest such wait, in ms.'),
  CALLBACK_MAX_AGE_MS: count(24 * HOUR_MS, 1000, 366 * 24 * HOUR_MS).describe(
    'After so long without success a callback is given up, in ms.',
  ),
  CALLBACK_CONCURRENCY: count(8, 1, 1024).describe('Callbacks on their way at once.'),
  STORAGE: z
    .enum(['auto', 'local', 'supabase', 's3'])
    .default('auto')
    .describe('Where files go; auto: Supabase where its two variables are set, S3 where S3_BUCKET is, else local.'),
  STORAGE_FOLDER: z.string().min(1).default('out').describe('Folder of local storage.'),
  STORAGE_BASE_URL: httpUrl.describe('What stands before the path in URLs of local storage and S3; unset: their own.'),
  STORAGE_TIMEOUT_MS: count(120_000, 100, HOUR_MS).describe('For one request to the storage, in ms.'),
  SUPABASE_URL: httpUrl.describe('URL of the Supabase project.'),
  SUPABASE_SERVICE_KEY: text.describe('Its service key.'),
  SUPABASE_SIGNED_URL_S: count(0, 0, 366 * 24 * 3600).describe(
    'How long URLs are good for, in seconds; 0: public URLs.',
  ),
  S3_BUCKET: text.describe('Bucket of all files; the job type is the first part of the key.'),
  S3_REGION: z.string().min(1).default('us-east-1').describe('Its region.'),
  S3_ENDPOINT: httpUrl.describe('Of a store that is not AWS.'),
  ...sharedVariables,
});

export type BridgeConfig = Readonly<z.infer<typeof bridgeConfigSchema>>;

/**
 * @param overrides values of the command line; they win over the environment
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readBridgeConfig(
  env: NodeJS.ProcessEnv = environment(),
  overrides: Partial<Record<keyof BridgeConfig, string>> = {},
): BridgeConfig {
  return withBridgeDefaults(readVariables(bridgeConfigSchema, { ...env, ...overrides }));
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
