import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Config, readConfig } from '../../config/server-config.js';
import type { Precision, Provider } from '../../device.js';
import { type PlannedModel, planModel } from '../../engine/plan-model.js';
import { planQwenMemory, type QwenMemory } from '../../enhancer/qwen/memory.js';
import { environment } from '../../environment.js';
import { builtInFamilies } from '../../pipelines/families.js';
import { type Residence, sumMemory } from '../../pipelines/model-memory.js';
import { writeReleasedSizes } from '../../synthetic/released-sizes.js';

/** Memory of the cards that a plan is checked against, in bytes. */
const CARDS: readonly number[] = [48e9, 24e9, 16e9, 12e9];

/** Residences of networks that only some jobs need, and that stay open after them. */
const ON_DEMAND: readonly Residence[] = ['reference', 'reuse'];

export interface PlanOptions {
  readonly provider: Provider;
  /** Omitted: PRECISION. */
  readonly precision?: Precision | undefined;
  /** Memory of the device in bytes. Omitted: that of common cards. */
  readonly memoryBytes?: number | undefined;
}

/** A way to use the device's memory. All numbers are bytes. */
export interface Arrangement {
  readonly name: string;
  /** Settings that lead to it. */
  readonly settings: string;
  /** What is open between jobs. */
  readonly betweenJobs: number;
  /** The most that jobs take which have neither references nor reused steps. */
  readonly withoutReferences: number;
  /** The most that any job takes. */
  readonly most: number;
}

/** What an arrangement does on a device. `without_references`: it fits while no job has a reference or reuses steps. */
export type Fit = 'fits' | 'without_references' | 'no';

export interface MemoryPlan {
  readonly provider: Provider;
  readonly precision: Precision;
  /** True where no checkpoint is configured, and models of the released sizes are planned. */
  readonly isReleased: boolean;
  readonly models: readonly PlannedModel[];
  /** The language model. Omitted: none is configured. */
  readonly language?: QwenMemory | undefined;
  readonly arrangements: readonly Arrangement[];
  /** Fits by arrangement, for each device. */
  readonly devices: readonly { readonly bytes: number; readonly fits: Readonly<Record<string, Fit>> }[];
  readonly notCounted: readonly string[];
}

/** What a plan leaves out: it depends on the driver. docs/reference/memory.md has what one card took. */
const NOT_COUNTED: readonly string[] = [
  "each process's context on the device",
  'workspaces of kernels (cuDNN, cuBLAS)',
  "slack of the runtime's arenas",
  'LoRA variants',
];

/**
 * Plans the memory of the configured models; of models of the released sizes where none is configured.
 * @throws InferenceError INVALID_REQUEST for a bad variable, CHECKPOINT_INVALID for a checkpoint that is not whole
 */
export async function planMemory(options: PlanOptions): Promise<MemoryPlan> {
  const config = readConfig();
  if (isConfigured(config)) return plan(config, options, false);
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-plan-'));
  try {
    return await plan(readConfig(environment(), await writeReleasedSizes(folder)), options, true);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function isConfigured(config: Config): boolean {
  return config.QWEN_PATH !== undefined || builtInFamilies.some((family) => family.sourceFrom(config));
}

async function plan(
  config: Config,
  { provider, precision = config.PRECISION, memoryBytes }: PlanOptions,
  isReleased: boolean,
): Promise<MemoryPlan> {
  const models: PlannedModel[] = [];
  for (const family of builtInFamilies) {
    const model = await planModel(family, config, { provider, precision, memoryBytes });
    if (model !== undefined) models.push(model);
  }
  const { QWEN_PATH: path, QWEN_TYPE: type, QWEN_PARALLEL: parallel } = config;
  const language = path === undefined ? undefined : await planQwenMemory({ path, type, parallel });
  const arrangements = arrangementsOf(models, language);
  const devices = (memoryBytes === undefined ? CARDS : [memoryBytes]).map((bytes) => ({
    bytes,
    fits: Object.fromEntries(arrangements.map((each) => [each.name, fitOf(each, bytes)])),
  }));
  return { provider, precision, isReleased, models, language, arrangements, devices, notCounted: NOT_COUNTED };
}

/** From the one that takes most to single models. */
function arrangementsOf(models: readonly PlannedModel[], language: QwenMemory | undefined): readonly Arrangement[] {
  const languageBytes = language === undefined ? 0 : language.weightBytes + language.runBytes;
  const hasEncoders = models.some(({ networks }) => networks.some(({ residence }) => residence === 'encode'));
  const arrangements = [
    {
      name: 'everything stays open',
      settings: hasEncoders ? 'WAN_TEXT_ENCODER_RESIDENT=true' : 'as configured',
      ...together(models, languageBytes, ['encode']),
    },
  ];
  if (hasEncoders) {
    arrangements.push({
      name: 'text encoder per prompt',
      settings: 'the defaults',
      ...together(models, languageBytes),
    });
  }
  if (language !== undefined && models.length > 0) {
    arrangements.push({
      name: 'text encoder and Qwen in turn',
      settings: 'QWEN_IDLE_MS=0',
      ...together(models, 0, [], languageBytes),
    });
  }
  if (models.length > 1 || language !== undefined) {
    for (const model of models) {
      arrangements.push({ name: `${model.family} alone`, settings: 'no other model', ...together([model], 0) });
    }
  }
  return arrangements;
}

/**
 * Sums of models that are loaded together. What is opened in turn is open one at a time.
 * @param openedBytes what stays open beside them
 * @param kept residences that stay open
 * @param inTurnBytes what else is opened in turn
 */
function together(
  models: readonly PlannedModel[],
  openedBytes: number,
  kept: readonly Residence[] = [],
  inTurnBytes = 0,
): Omit<Arrangement, 'name' | 'settings'> {
  const networks = models.flatMap((model) => model.networks);
  const needed = (residences: readonly Residence[]) => {
    const { rest, largestInTurn } = sumMemory(networks, residences);
    return { rest: openedBytes + rest, most: openedBytes + rest + Math.max(largestInTurn, inTurnBytes) };
  };
  const text = needed(kept);
  return { betweenJobs: text.rest, withoutReferences: text.most, most: needed([...kept, ...ON_DEMAND]).most };
}

function fitOf({ most, withoutReferences }: Arrangement, bytes: number): Fit {
  if (most <= bytes) return 'fits';
  return withoutReferences <= bytes ? 'without_references' : 'no';
}
