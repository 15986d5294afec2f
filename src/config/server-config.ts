import { z } from 'zod';
import { devices } from '../device.js';
import { ggufTypes } from '../enhancer/qwen/convert.js';
import { InferenceError, listProblems } from '../errors.js';
import { predictionTypes } from '../pipelines/sdxl/checkpoint/checkpoint.js';
import { parseAllowedHost } from '../references/allowed-hosts.js';
import { type BridgeConfig, bridgeConfigSchema, withBridgeDefaults } from './bridge-config.js';
import { count, sharedVariables } from './shared-variables.js';

const modelName = (name: string) =>
  z
    .string()
    .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be lower-case letters, digits, ".", "_" and "-"')
    .default(name)
    .describe('What requests call that model.');

const path = z.string().min(1).optional();

/**
 * Every variable that the server reads, with default and bounds; docs/reference/config.md lists them and the bridge's, a test
 * compares the two. Only this file reads the environment.
 */
export const configSchema = z.object({
  DARKROOM_LISTEN: z
    .string()
    .regex(/^.+:\d{1,5}$/, 'must be host:port, for example 0.0.0.0:50051')
    .default('127.0.0.1:50051')
    .describe('Address the server listens on; port 0 takes a free one.'),
  SDXL_PATH: path.describe('SDXL checkpoint: a diffusers-layout folder, or a single .safetensors file.'),
  SDXL_TOKENIZER: path.describe(
    "Of a single file: folder with CLIP's vocab.json and merges.txt; unset: beside the file.",
  ),
  SDXL_VAE: path.describe("VAE in place of the checkpoint's: file or diffusers folder."),
  SDXL_TEXT_ENCODER: path.describe("CLIP ViT-L in place of the checkpoint's: file or folder."),
  SDXL_TEXT_ENCODER_2: path.describe("OpenCLIP ViT-bigG in place of the checkpoint's: file or folder."),
  SDXL_PREDICTION_TYPE: z
    .enum(predictionTypes)
    .optional()
    .describe('What the UNet predicts, where the checkpoint is wrong about it.'),
  SDXL_ZERO_TERMINAL_SNR: z
    .enum(['true', 'false'])
    .optional()
    .describe('Whether it was trained with zero terminal SNR, where the checkpoint is wrong about it.'),
  SDXL_NAME: modelName('sdxl'),
  WAN_PATH: path.describe('WAN 2.1 checkpoint: a diffusers-layout folder, or one as the original code has it.'),
  WAN_NAME: modelName('wan'),
  WAN_VAE: path.describe("VAE in place of the checkpoint's: file or diffusers folder."),
  WAN_TEXT_ENCODER: path.describe("UMT5 encoder in place of the checkpoint's: file or folder."),
  WAN_IMAGE_ENCODER: path.describe(
    "CLIP's image encoder, of an image-to-video model, in place of the checkpoint's: file or folder.",
  ),
  WAN_TOKENIZER: path.describe(
    "UMT5's tokenizer: folder with tokenizer.json or spiece.model; unset: the checkpoint's.",
  ),
  WAN_TEXT_ENCODER_RESIDENT: z
    .enum(['true', 'false'])
    .default('false')
    .describe('Whether the text encoder stays loaded between prompts: 23 GB in float32 for the released one.'),
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
 * @param overrides what the command line says; it wins over the environment
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readConfig(
  env: NodeJS.ProcessEnv = process.env,
  overrides: Partial<Record<keyof Config, string>> = {},
): Config {
  return readVariables(configSchema, { ...env, ...overrides });
}

/** The same for `darkroom bridge` and `darkroom jobs`. */
export function readBridgeConfig(
  env: NodeJS.ProcessEnv = process.env,
  overrides: Partial<Record<keyof BridgeConfig, string>> = {},
): BridgeConfig {
  return withBridgeDefaults(readVariables(bridgeConfigSchema, { ...env, ...overrides }));
}

/** Values that messages do not repeat. */
const SECRET = /TOKEN|KEY|SECRET|REDIS_URL/;

function readVariables<T extends z.ZodType>(schema: T, variables: NodeJS.ProcessEnv): Readonly<z.infer<T>> {
  // A variable that is set to nothing is not set.
  const given = Object.entries(variables).filter(([, value]) => value !== undefined && value !== '');
  const parsed = schema.safeParse(Object.fromEntries(given));
  if (parsed.success) return Object.freeze(parsed.data as object) as Readonly<z.infer<T>>;
  const problems = parsed.error.issues.map((issue) => {
    const name = String(issue.path[0]);
    const value = Object.fromEntries(given)[name];
    return `${name}${SECRET.test(name) || value === undefined ? '' : ` "${value}"`}: ${issue.message}`;
  });
  throw new InferenceError('INVALID_REQUEST', `the configuration has mistakes:\n${listProblems(problems)}`);
}
