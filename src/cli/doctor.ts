import { freemem, totalmem } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { configSchema } from '../config/server-config.js';
import { type Precision, type Provider, precisions } from '../device.js';
import { findLlama } from '../enhancer/llama.js';
import { environment } from '../environment.js';
import { InferenceError } from '../errors.js';
import { findFfmpeg } from '../media/ffmpeg.js';
import { CacheFolder } from '../runtime/model-cache/cache-folder.js';
import { probeProvider } from '../runtime/probe.js';
import { formatBytes } from '../std/format-bytes.js';

interface DoctorOptions {
  readonly plan?: boolean;
  readonly json?: boolean;
  /** In bytes. */
  readonly memory?: number;
  readonly provider?: Provider;
  readonly precision?: Precision;
}

interface Finding {
  readonly what: string;
  readonly ok: boolean;
  readonly detail: string;
  /** Remedy for a finding that is not ok. */
  readonly fix?: string;
}

const PROVIDERS: readonly Provider[] = ['cpu', 'webgpu', 'cuda', 'tensorrt'];
const MIN_NODE = [20, 19] as const;

export function createDoctorCommand(): Command {
  return new Command('doctor')
    .description(
      'check Node, memory, the providers that really open, ffmpeg, llama.cpp and the model cache, with a fix for each',
    )
    .option('--plan', 'compute what the configured models take on a device instead, and what fits on which card')
    .addOption(new Option('--memory <size>', 'with --plan: memory of the device, for example 48GB').argParser(bytesOf))
    .addOption(
      new Option('--provider <name>', 'with --plan: provider of the device (default: cuda)').choices(PROVIDERS),
    )
    .addOption(
      new Option('--precision <name>', 'with --plan: what networks compute in (PRECISION)').choices(precisions),
    )
    .option('--json', 'machine-readable')
    .action(async ({ plan, json, ...options }: DoctorOptions) => {
      if (plan) return printPlan(options, json);
      const [stray] = Object.keys(options);
      if (stray !== undefined) {
        throw new InferenceError('INVALID_REQUEST', `--${stray} is for a memory plan; add --plan`);
      }
      const findings = await examine();
      const canRun = findings.some(({ what, ok }) => ok && PROVIDERS.some((provider) => what === provider));
      const text = () => `${findings.map(format).join('')}\n${nextCommand(findings, canRun)}\n`;
      process.stdout.write(json ? `${JSON.stringify(findings, null, 2)}\n` : text());
      process.exitCode = canRun ? 0 : 1;
    });
}

/** What to type now: the remedy of what keeps darkroom from running, else the demo. */
function nextCommand(findings: readonly Finding[], canRun: boolean): string {
  if (canRun) return 'next: npx darkroom demo';
  const blocking = findings.find(({ what, ok }) => !ok && (what === 'node' || what === 'cpu'));
  return `next: ${blocking?.fix ?? 'npm ci'}`;
}

async function printPlan({ memory, provider = 'cuda', precision }: DoctorOptions, json = false): Promise<void> {
  const { planMemory } = await import('./doctor/plan-memory.js');
  const { formatPlan } = await import('./doctor/format-plan.js');
  const plan = await planMemory({ provider, precision, memoryBytes: memory });
  process.stdout.write(json ? `${JSON.stringify(plan, null, 2)}\n` : formatPlan(plan));
}

/** Parses a size in decimal or binary gigabytes. */
function bytesOf(text: string): number {
  const [, number = '', binary] = /^(\d+(?:\.\d+)?) ?G(i)?B$/i.exec(text) ?? [];
  const bytes = Number(number) * (binary ? 2 ** 30 : 1e9);
  if (bytes > 0) return bytes;
  throw new InvalidArgumentError('must be a size above 0 in GB or GiB, for example 48GB.');
}

async function examine(): Promise<readonly Finding[]> {
  const findings = [node(), memory()];
  for (const provider of PROVIDERS) {
    const { opens, detail, fix } = await probeProvider(provider);
    findings.push({ what: provider, ok: opens, detail, ...(fix !== undefined && { fix }) });
  }
  const ffmpeg = await findFfmpeg(environment().FFMPEG_PATH);
  findings.push(
    ffmpeg.found
      ? { what: 'ffmpeg', ok: true, detail: `${ffmpeg.version} at ${ffmpeg.path}` }
      : { what: 'ffmpeg', ok: false, detail: `${ffmpeg.detail}; only videos need it`, fix: ffmpeg.fix },
  );
  findings.push(await llama(), await modelCache());
  return findings;
}

async function llama(): Promise<Finding> {
  const found = await findLlama();
  return found === undefined
    ? {
        what: 'llama',
        ok: false,
        detail: 'node-llama-cpp is not installed; only enhanced prompts need it',
        fix: 'run npm run setup:llama',
      }
    : { what: 'llama', ok: true, detail: 'node-llama-cpp is installed' };
}

/** The cache of prepared weights: whether it is on and can be written, and what it has. */
async function modelCache(): Promise<Finding> {
  const { MODEL_CACHE_DIR: folder, MODEL_CACHE_BYTES } = environment();
  const what = 'cache';
  if (!folder) {
    return { what, ok: true, detail: 'off; with MODEL_CACHE_DIR=FOLDER models on the CPU load faster' };
  }
  const maxBytes = configSchema.shape.MODEL_CACHE_BYTES.safeParse(MODEL_CACHE_BYTES || undefined);
  if (!maxBytes.success) {
    return { what, ok: false, detail: `MODEL_CACHE_BYTES is ${MODEL_CACHE_BYTES}`, fix: 'correct MODEL_CACHE_BYTES' };
  }
  const cache = new CacheFolder({ folder, maxBytes: maxBytes.data });
  const problem = await cache.problem();
  if (problem !== undefined) {
    const fix = 'make the folder writable, or name another one in MODEL_CACHE_DIR';
    return { what, ok: false, detail: `${folder} cannot be written, ${problem}`, fix };
  }
  const { entries, bytes } = await cache.measure();
  return {
    what,
    ok: true,
    detail: `${entries} entries, ${formatBytes(bytes)} of ${formatBytes(maxBytes.data)} in ${folder}`,
  };
}

function node(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const ok = major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1]);
  return {
    what: 'node',
    ok,
    detail: process.version,
    ...(!ok && { fix: `install Node ${MIN_NODE.join('.')} or newer` }),
  };
}

function memory(): Finding {
  return { what: 'memory', ok: true, detail: `${formatBytes(freemem())} of ${formatBytes(totalmem())} free` };
}

function format({ what, ok, detail, fix }: Finding): string {
  const line = `${ok ? 'ok ' : 'no '} ${what.padEnd(9)} ${detail}\n`;
  return fix === undefined ? line : `${line}              fix: ${fix}\n`;
}
