import { z } from 'zod';
import { devices } from '../device.js';
import { ggufTypes } from '../enhancer/qwen/gguf-file-types.js';
import { environment } from '../environment.js';
import { builtInFamilies, builtInVariables } from '../pipelines/families.js';
import type { Families } from '../pipelines/family.js';
import { parseAllowedHost } from '../references/allowed-hosts.js';
import { count, modelName, path } from '../std/variable-kinds.js';
import { readVariables } from './read-variables.js';
import { sharedVariables } from './shared-variables.js';

/**
 * Every variable that the server reads, with default and bounds; docs/reference/config.md lists them and the bridge's, a test
 * compares the two.
 */
export const configSchema = z.object({
  DARKROOM_LISTEN: z
    .string()
    .regex(/^.+:\d{1,5}$/, 'must be host:port, for example 0.0.0.0:50051')
    .default('127.0.0.1:50051')
    .describe('Address the server listens on; port 0 takes a free one.'),
  ...builtInVariables,
  QWEN_PATH: path.describe(
    'Qwen2 or Qwen2.5 that enhances prompts: a GGUF file, or a folder as transformers saves it.',
  ),
  QWEN_NAME: modelName('qwen'),
  QWEN_TYPE: z.enum(ggufTypes).default('q8_0').describe('What a folder is converted to.'),
  QWEN_CACHE: path.describe('Folder of converted models; unset: ~/.cache/darkroom/gguf.'),
  QWEN_IDLE_MS: count(300_000, 0, 2 ** 31 - 1).describe(
    'How long it stays loaded after its last prompt, in ms; then its process ends.',
  ),
  QWEN_PARALLEL: count(4, 1, 64).describe('Prompts that it writes at the same time.'),
  ENHANCE_TEMPLATE: path.describe('How prompts are put to it: a YAML file; unset: the built-in one.'),
  ENHANCE_TIMEOUT_MS: count(60_000, 1, 3_600_000).describe(
    'Time to enhance a prompt, in ms: of a job from its acceptance, of a call from when the model is ready.',
  ),
  MEMORY_RESERVE_BYTES: count(2 ** 30, 0, 2 ** 40).describe(
    'Memory, of a GPU its own, that language models and variants with LoRAs leave free.',
  ),
  LORA_DIR: path.describe('Folder of LoRA files, .safetensors; looked into again when a request comes.'),
  LORA_FILES: z
    .string()
    .transform((list) => list.split(',').flatMap((entry) => entry.trim() || []))
    .refine((files) => files.every((file) => /^[^=]+=.+$/.test(file)), 'must be NAME=PATH, separated by commas')
    .optional()
    .describe('LoRA files outside of it, NAME=PATH, separated by commas.'),
  LORA_VARIANTS: count(2, 1, 64).describe(
    'Variants with LoRAs that are kept beside each bare model; an SDXL one takes 10 GB in float32.',
  ),
  LORA_PATIENCE_MS: count(60_000, 0, 86_400_000).describe(
    'How long a job may be passed over by others that need no variant built, in ms.',
  ),
  DEVICE: z.enum(devices).default('auto').describe('Where models run; auto takes the best that really opens.'),
  ENGINE_THREADS: count(0, 0, 1024).describe('Threads of a CPU engine; 0 lets the runtime choose.'),
  BATCH_PIXELS: count(3 * 1024 * 1024, 4096, 2 ** 40).describe(
    'Pixels of all pictures that are denoised together; one alone may have more.',
  ),
  OUTPUT_METADATA: z
    .enum(['full', 'provenance', 'none'])
    .default('full')
    .describe('What files say about themselves where the request leaves it open.'),
  VIDEO_CRF: count(18, 0, 51).describe('Quality of MP4 clips, on the scale of x264: 0 is lossless.'),
  FFMPEG_PATH: path.describe('ffmpeg that writes clips; unset: the optional package, else the PATH.'),
  LIMIT_QUEUE: count(64, 1, 100_000).describe('Most jobs that wait or run at once.'),
  LIMIT_STEPS: count(1000, 1, 10_000).describe('Most denoising steps of a job.'),
  LIMIT_FRAMES: count(161, 1, 10_000).describe('Most frames of a clip.'),
  LIMIT_SIDE_PIXELS: count(2048, 64, 16_384).describe('Largest width or height, in pixels.'),
  LIMIT_PROMPT_BYTES: count(16_384, 1, 1_000_000).describe('Longest prompt, in bytes of UTF-8.'),
  CANCEL_BOUND_MS: count(30_000, 100, 3_600_000).describe('From a cancel to the kill of the engine, in ms.'),
  HANG_TIMEOUT_MS: count(600_000, 1000, 86_400_000).describe('Silence of a running job that counts as a hang, in ms.'),
  DRAIN_TIMEOUT_MS: count(600_000, 0, 86_400_000).describe('How long SIGTERM waits for accepted jobs, in ms.'),
  JOB_RETENTION: count(1000, 1, 1_000_000).describe('Finished jobs that are kept.'),
  JOB_RETENTION_BYTES: count(512 * 1024 * 1024, 0, 2 ** 40).describe('Bytes of finished files that are kept.'),
  REFERENCE_HOSTS: z
    .string()
    .transform((list) => list.split(',').flatMap((entry) => entry.trim() || []))
    .refine((hosts) => hosts.every((host) => parseAllowedHost(host) !== undefined), 'must be names like *.supabase.co')
    .optional()
    .describe('Hosts that references are fetched from, separated by commas; unset: none.'),
  REFERENCE_MAX_BYTES: count(20 * 1024 * 1024, 1024, 2 ** 30).describe('Largest reference, in bytes.'),
  REFERENCE_TIMEOUT_MS: count(10_000, 100, 600_000).describe('From a request for a reference to its last byte, in ms.'),
  REFERENCE_MAX_PIXELS: count(50_000_000, 4096, 1_000_000_000).describe('Largest reference, in pixels of its own.'),
  ...sharedVariables,
});

export type Config = Readonly<z.infer<typeof configSchema>>;

/**
 * @param overrides values of the command line; they win over the environment
 * @param families whose variables are read. Omitted: those that darkroom has
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readConfig(
  env: NodeJS.ProcessEnv = environment(),
  overrides: Readonly<Record<string, string | undefined>> = {},
  families: Families = builtInFamilies,
): Config {
  const schema = configSchema.extend(Object.assign({}, ...families.map(({ variables }) => variables)));
  return readVariables(schema, { ...env, ...overrides }) as Config;
}
