import { z } from 'zod';
import { devices, precisions, turnPolicies } from '../device.js';
import { ggufTypes } from '../enhancer/qwen/gguf-file-types.js';
import { environment } from '../environment.js';
import { builtInFamilies, builtInVariables } from '../pipelines/families.js';
import type { Families } from '../pipelines/family.js';
import { parseAllowedHost } from '../references/allowed-hosts.js';
import { runtimeNames } from '../runtime/runtime-names.js';
import { count, listenAddress, modelName, path } from '../std/variable-kinds.js';
import { accessVariables } from './access-variables.js';
import { parseDeviceList } from './device-list.js';
import { readVariables } from './read-variables.js';
import { metricsAddress, sharedVariables } from './shared-variables.js';

/**
 * Every variable of the server, with default and bounds. A test compares this and the bridge's schema with
 * docs/reference/config.md.
 */
export const configSchema = z.object({
  DARKROOM_LISTEN: listenAddress('127.0.0.1:50051', '0.0.0.0:50051').describe(
    'Address that the server listens on, host:port. Port 0 picks a free port.',
  ),
  ...accessVariables,
  ...builtInVariables,
  QWEN_PATH: path.describe(
    "Qwen2 or Qwen2.5 model that enhances prompts: a GGUF file, or a folder in transformers' layout. Unset: prompts are not enhanced.",
  ),
  QWEN_NAME: modelName('qwen', 'language'),
  QWEN_TYPE: z.enum(ggufTypes).default('q8_0').describe('Storage type that a QWEN_PATH folder is converted to.'),
  QWEN_CACHE: path.describe(
    'Folder for converted Qwen models. Unset: darkroom/gguf in XDG_CACHE_HOME, else in ~/.cache.',
  ),
  QWEN_IDLE_MS: count(300_000, 0, 2 ** 31 - 1).describe(
    'Idle time of the language model in ms. Its process ends when no prompt came for this long.',
  ),
  QWEN_PARALLEL: count(4, 1, 64).describe(
    'Number of prompts that the language model writes at the same time. Each one takes memory.',
  ),
  ENHANCE_TEMPLATE: path.describe('YAML file with the template for enhancing prompts. Unset: the built-in template.'),
  ENHANCE_TIMEOUT_MS: count(60_000, 1, 3_600_000).describe(
    'Time limit for enhancing a prompt, in ms. For a job it counts from acceptance, for an Enhance call from when the model is ready.',
  ),
  MEMORY_RESERVE_BYTES: count(2 ** 30, 0, 2 ** 40).describe(
    'Memory that the language model and LoRA variants must leave free, in bytes: of the NVIDIA card, otherwise of the machine.',
  ),
  LORA_DIR: path.describe(
    'Folder with LoRA files (.safetensors), subfolders included. The server notices changes while it runs. Unset: none.',
  ),
  LORA_FILES: z
    .string()
    .transform((list) => list.split(',').flatMap((entry) => entry.trim() || []))
    .refine((files) => files.every((file) => /^[^=]+=.+$/.test(file)), 'must be NAME=PATH, separated by commas')
    .optional()
    .describe('LoRA files outside LORA_DIR, as NAME=PATH, separated by commas.'),
  EMBEDDING_DIR: path.describe(
    'Folder with embeddings (textual inversion: .safetensors, .pt, .bin), subfolders included, which prompts name. The server notices changes while it runs. Unset: none.',
  ),
  CONTROLNET_DIR: path.describe(
    'Folder with ControlNets for SDXL (.safetensors files, or folders as diffusers has them), subfolders included. The server notices changes while it runs. Unset: none.',
  ),
  UPSCALER_DIR: path.describe(
    'Folder with upscalers (ESRGAN and Real-ESRGAN: .safetensors, .pth), subfolders included. The server notices changes while it runs. Unset: none.',
  ),
  LORA_VARIANTS: count(2, 1, 64).describe(
    'Number of LoRA variants that are kept for each model, beside the bare model. One of SDXL takes 10 GB in float32.',
  ),
  LORA_PATIENCE_MS: count(60_000, 0, 86_400_000).describe(
    'Longest time in ms that a job which needs a new LoRA variant may be overtaken by jobs that need none.',
  ),
  DEVICE: z
    .enum(devices)
    .default('auto')
    .describe('Device that models run on. auto tries CUDA, then WebGPU, then the CPU.'),
  DEVICES: z
    .string()
    .transform((list, context) => {
      const parsed = parseDeviceList(list);
      if (typeof parsed !== 'string') return parsed;
      context.addIssue({ code: 'custom', message: parsed });
      return z.NEVER;
    })
    .optional()
    .describe(
      'Devices that models are placed on, separated by commas: cuda:0,cuda:1. It replaces DEVICE. Unset: the one that DEVICE names.',
    ),
  GPU_TURNS: z
    .enum(turnPolicies)
    .optional()
    .describe(
      'How engines on one device take turns. fair: the one that used it least goes first. images-first: images go before videos. off: they run at the same time. Unset: fair on a GPU, off on the CPU.',
    ),
  RUNTIME: z
    .enum(runtimeNames)
    .default('auto')
    .describe(
      'How ONNX Runtime is called. native: its C API, whose runs can be ended. binding: onnxruntime-node. auto: native where it opens.',
    ),
  PROVIDER_LIBRARY: path.describe(
    "Library of an execution provider, which replaces the runtime's own for DEVICE. Needs the native runtime. Unset: none.",
  ),
  PRECISION: z
    .enum(precisions)
    .default('auto')
    .describe(
      'What networks compute in. auto: half precision on CUDA, float32 elsewhere. A network that the device, its weights or its test run rule a half type out for takes the next wider one.',
    ),
  CUDA_FUSIONS: z
    .enum(['auto', 'off'])
    .default('auto')
    .describe(
      'Ops of CUDA that do several in one, such as a group norm with its SiLU. auto: those that give what their plain spelling gives on the device. off: none.',
    ),
  ENGINE_THREADS: count(0, 0, 1024).describe(
    "CPU threads of an engine. 0: the runtime's choice; for the language model one less than there are cores.",
  ),
  CPU_WEIGHTS: z
    .enum(['packed', 'mapped'])
    .default('packed')
    .describe(
      'How networks on the CPU hold their matrices. packed: in the order of the kernels, which run fastest. mapped: as they are; with MODEL_CACHE_DIR they load at once and engines share their memory.',
    ),
  CPU_LINEAR: z
    .enum(['float', 'int8'])
    .default('float')
    .describe(
      'What the linear layers of denoisers compute in on the CPU. int8: weights and inputs are rounded to 8 bits, which is faster and less exact; needs MODEL_CACHE_DIR. A draft.',
    ),
  MODEL_CACHE_DIR: path.describe(
    'Folder in which models on the CPU keep their prepared weights, so that they load faster. Engines may share it. Unset: nothing is kept.',
  ),
  MODEL_CACHE_BYTES: count(2 ** 36, 2 ** 20, 2 ** 50).describe(
    'Largest size of MODEL_CACHE_DIR, in bytes. What was not used for the longest time is removed.',
  ),
  WEIGHTS_CACHE: path.describe(
    'Folder for weights of GGUF files, converted to float16. Engines may share it. Unset: darkroom/weights in XDG_CACHE_HOME, else in ~/.cache.',
  ),
  BATCH_PIXELS: count(3 * 1024 * 1024, 4096, 2 ** 40).describe(
    'Largest number of pixels of all images that are denoised together. A single image may have more.',
  ),
  OUTPUT_METADATA: z
    .enum(['full', 'provenance', 'none'])
    .default('full')
    .describe('What files say about their making if the request does not say.'),
  VIDEO_CRF: count(18, 0, 51).describe("Quality of MP4 videos on x264's CRF scale: 0 is lossless, 51 the worst."),
  FFMPEG_PATH: path.describe(
    'Path of ffmpeg, which writes videos and reads control videos. Unset: the binary of the optional package ffmpeg-static, otherwise ffmpeg on the PATH.',
  ),
  LIMIT_QUEUE: count(64, 1, 100_000).describe(
    'Largest number of jobs that wait or run, over all models. Enhance calls are counted separately, with the same limit.',
  ),
  LIMIT_STEPS: count(1000, 1, 10_000).describe('Largest number of denoising steps of a job.'),
  LIMIT_FRAMES: count(161, 1, 10_000).describe('Largest number of frames of a video.'),
  LIMIT_SIDE_PIXELS: count(2048, 64, 16_384).describe('Largest width and height of a result, in pixels.'),
  LIMIT_PROMPT_BYTES: count(16_384, 1, 65_536).describe('Largest size of a prompt, in bytes of UTF-8.'),
  POLICY_RULES: path.describe('YAML file with further rules that refuse prompts. Unset: only the built-in rule.'),
  POLICY_URL: z
    .string()
    .regex(/^https?:\/\/\S+$/, 'must be an http or https URL')
    .optional()
    .describe('URL of a moderation service that every prompt is sent to. Unset: none is asked.'),
  POLICY_TIMEOUT_MS: count(2000, 10, 60_000).describe('Time limit for one call of the moderation service, in ms.'),
  POLICY_FAIL: z
    .enum(['closed', 'open'])
    .default('closed')
    .describe(
      'What happens if the moderation service does not answer. closed: the prompt is not accepted. open: the other rules decide.',
    ),
  POLICY_IMAGE_MODEL: path.describe(
    'ONNX classifier that every result is checked with after decoding. Its settings are in a JSON file beside it. Unset: results are not checked.',
  ),
  POLICY_IMAGE_FRAMES: count(8, 1, 10_000).describe('Number of frames of a video that the classifier checks.'),
  POLICY_IMAGE_FAIL: z
    .enum(['closed', 'open'])
    .default('closed')
    .describe('What happens if a result cannot be checked. closed: its job fails. open: the result is returned.'),
  CANCEL_BOUND_MS: count(30_000, 100, 3_600_000).describe(
    'Time in ms that a cancelled job has to stop. After it the engine is killed.',
  ),
  HANG_TIMEOUT_MS: count(600_000, 1000, 86_400_000).describe(
    'Time in ms without any event from a running job after which the engine counts as hung and is killed.',
  ),
  DRAIN_TIMEOUT_MS: count(600_000, 0, 86_400_000).describe(
    'Time in ms that the server waits for accepted jobs after SIGTERM. The rest is cancelled.',
  ),
  JOB_RETENTION: count(1000, 1, 1_000_000).describe('Number of ended jobs that the server keeps.'),
  JOB_RETENTION_BYTES: count(512 * 1024 * 1024, 0, 2 ** 40).describe(
    'Size of all kept files of ended jobs, in bytes. The job that ended last is kept whatever its size.',
  ),
  REFERENCE_HOSTS: z
    .string()
    .transform((list) => list.split(',').flatMap((entry) => entry.trim() || []))
    .refine((hosts) => hosts.every((host) => parseAllowedHost(host) !== undefined), 'must be names like *.supabase.co')
    .optional()
    .describe('Hosts that references may be fetched from, separated by commas. Unset: no reference is fetched.'),
  REFERENCE_MAX_BYTES: count(20 * 1024 * 1024, 1024, 2 ** 30).describe('Largest file size of a reference, in bytes.'),
  REFERENCE_TIMEOUT_MS: count(10_000, 100, 600_000).describe(
    'Time limit for fetching a reference, redirects included, in ms.',
  ),
  REFERENCE_MAX_PIXELS: count(50_000_000, 4096, 1_000_000_000).describe(
    'Largest width times height of a reference, in pixels.',
  ),
  METRICS_LISTEN: metricsAddress(9464).describe(
    'Address that the server serves its metrics on over HTTP, host:port. off: none.',
  ),
  ...sharedVariables,
});

export type Config = Readonly<z.infer<typeof configSchema>>;

/**
 * Reads the configuration of the server.
 * @param overrides values of the command line; they win over the environment
 * @param families families whose variables are read. Default: the built-in ones
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
