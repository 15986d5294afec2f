import type { PlannedModel } from '../../engine/plan-model.js';
import type { QwenMemory } from '../../enhancer/qwen/memory.js';
import { openBytes, type PlannedNetwork, type Residence, type RunSize } from '../../pipelines/model-memory.js';
import { formatBytes } from '../../std/format-bytes.js';
import type { Fit, MemoryPlan } from './plan-memory.js';

const OPEN: Readonly<Record<Residence, string>> = {
  always: 'always',
  encode: 'per prompt',
  reference: 'from the first reference on',
  reuse: 'from the first reused step on',
};

const FITS: Readonly<Record<Fit, string>> = { fits: 'yes', without_references: 'without references', no: 'no' };

/** A plan as text: networks, sums, and what fits. */
export function formatPlan({ models, language, arrangements, devices, ...plan }: MemoryPlan): string {
  const of = plan.isReleased
    ? 'models of the released sizes, because no checkpoint is configured'
    : 'the configured models';
  const languageRows = language && [
    ['network', 'open', 'weights', 'run', 'together'],
    ['Qwen', 'while it is used', ...[language.weightBytes, language.runBytes, sum(language)].map(gb)],
  ];
  const fitRows = [
    [
      '',
      'between jobs',
      'without references',
      'at most',
      ...devices.map(({ bytes }) => `${Number((bytes / 1e9).toFixed(1))} GB`),
    ],
    ...arrangements.map(({ name, betweenJobs, withoutReferences, most }) => [
      name,
      ...[betweenJobs, withoutReferences, most].map(gb),
      ...devices.map(({ fits }) => FITS[fits[name] ?? 'no']),
    ]),
  ];
  return [
    `Memory of ${of}: ${plan.provider}, precision ${plan.precision}. Computed from the graphs; nothing was run.${plan.isReleased ? ' SDXL_PATH, WAN_PATH and QWEN_PATH name yours.' : ''}`,
    ...models.map((model) => `${model.title}, ${describeRun(model.run)}\n${table(networkRows(model))}`),
    ...(languageRows ? [`Language model, as the server estimates it\n${table(languageRows)}`] : []),
    table(fitRows),
    'at most: the most that any job takes. Below a card: whether that fits; "without references": only jobs without a reference image fit.',
    arrangements.map(({ name, settings }) => `${name}: ${settings}`).join('\n'),
    `not counted: ${plan.notCounted.join('; ')}; an H200 took 6.4 GB more for SDXL and 7.8 GB for WAN (docs/reference/memory.md#on-a-card)`,
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n');
}

function describeRun({ width, height, frames, rows }: RunSize): string {
  const size = frames > 1 ? `${width}x${height}, ${frames} frames` : `${width}x${height}`;
  return `${size}, batch ${rows} (guided)`;
}

function networkRows({ networks }: PlannedModel): readonly (readonly string[])[] {
  const open = networks.filter(({ residence }) => residence === 'always');
  const sum = (bytesOf: (network: PlannedNetwork) => number) =>
    gb(open.reduce((bytes, network) => bytes + bytesOf(network), 0));
  return [
    ['network', 'computes in', 'open', 'weights', 'run', 'together'],
    ...networks.map((network) => [
      network.network,
      network.precision,
      OPEN[network.residence],
      gb(network.weightBytes),
      gb(network.peakBytes),
      gb(openBytes(network)),
    ]),
    ['always open', '', '', sum(({ weightBytes }) => weightBytes), sum(({ peakBytes }) => peakBytes), sum(openBytes)],
  ];
}

function gb(bytes: number): string {
  return formatBytes(bytes, 2);
}

function sum({ weightBytes, runBytes }: QwenMemory): number {
  return weightBytes + runBytes;
}

/** Columns as wide as their widest cell; those of sizes to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const columns = (rows[0] ?? []).map((_, i) => rows.map((row) => row[i] ?? ''));
  const padded = columns.map((cells) => {
    const width = Math.max(...cells.map(({ length }) => length));
    const areSizes = cells.slice(1).some((cell) => / GB$/.test(cell));
    return cells.map((cell) => (areSizes ? cell.padStart(width) : cell.padEnd(width)));
  });
  return rows.map((_, i) => `  ${padded.map((cells) => cells[i]).join('  ')}`.trimEnd()).join('\n');
}
