import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import type { MemoryPlan } from '../../src/cli/doctor/plan-memory.js';
import type { PlannedNetwork } from '../../src/pipelines/model-memory.js';
import { sdxl } from '../../src/pipelines/sdxl/family.js';
import { expectedDialects } from '../../src/runtime/precision.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { darkroom } from '../support/command-line.js';
import { tempFolder } from '../support/temp-folder.js';

async function planOf(args: readonly string[], env: Record<string, string> = {}): Promise<MemoryPlan> {
  const { code, stdout, stderr } = await darkroom(['doctor', '--plan', '--json', ...args], { env });
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as MemoryPlan;
}

function open(networks: readonly PlannedNetwork[], ...residences: readonly string[]): readonly number[] {
  return networks
    .filter(({ residence }) => residences.includes(residence))
    .map(({ weightBytes, peakBytes }) => weightBytes + peakBytes);
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

describe('doctor --plan', () => {
  it('plans the released sizes where no checkpoint is configured, and leaves nothing behind', async () => {
    const scratch = await tempFolder();
    const plan = await planOf([], { TMPDIR: scratch });
    const { isReleased, provider, precision, models, language, arrangements, devices } = plan;
    expect([isReleased, provider, precision]).toEqual([true, 'cuda', 'auto']);
    const [image, video] = models as readonly [MemoryPlan['models'][0], MemoryPlan['models'][0]];
    expect(image.run).toEqual({ width: 1024, height: 1024, frames: 1, rows: 6 });
    expect(video.run).toEqual({ width: 832, height: 480, frames: 81, rows: 2 });
    const weights = Object.fromEntries(image.networks.map(({ network, weightBytes }) => [network, weightBytes / 1e9]));
    expect(weights.unet).toBeCloseTo(5.13, 2);
    // 7.6 billion parameters, 34 bytes for 32 of them
    expect((language?.weightBytes ?? 0) / 1e9).toBeCloseTo(8.09, 2);

    const byName = new Map(arrangements.map((each) => [each.name, each]));
    const always = sum([...open(image.networks, 'always'), ...open(video.networks, 'always')]);
    const [encoder = 0] = open(video.networks, 'encode');
    const qwen = (language?.weightBytes ?? 0) + (language?.runBytes ?? 0);
    const references = sum(models.flatMap(({ networks }) => open(networks, 'reference', 'reuse')));
    expect(byName.get('everything stays open')).toMatchObject({
      betweenJobs: always + encoder + qwen,
      withoutReferences: always + encoder + qwen,
      most: always + encoder + qwen + references,
    });
    expect(byName.get('text encoder per prompt')).toMatchObject({
      betweenJobs: always + qwen,
      withoutReferences: always + qwen + encoder,
    });
    expect(byName.get('text encoder and Qwen in turn')).toMatchObject({
      betweenJobs: always,
      withoutReferences: always + Math.max(qwen, encoder),
    });
    expect(byName.get('SDXL alone')?.betweenJobs).toBe(sum(open(image.networks, 'always')));
    expect(byName.get('WAN alone')?.withoutReferences).toBe(sum(open(video.networks, 'always', 'encode')));

    expect(devices.map(({ bytes }) => bytes / 1e9)).toEqual([48, 24, 16, 12]);
    for (const { bytes, fits } of devices) {
      for (const { name, most, withoutReferences } of arrangements) {
        const fit = most <= bytes ? 'fits' : withoutReferences <= bytes ? 'without_references' : 'no';
        expect([name, fits[name]]).toEqual([name, fit]);
      }
    }
    expect(await readdir(scratch)).toEqual([]);
  });

  it('plans the configured checkpoint for the named device, precision and memory', async () => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-base', 'F16', true);
    const args = ['--memory', '15GiB', '--provider', 'cpu', '--precision', 'fp32'];
    const plan = await planOf(args, { SDXL_PATH: path, BATCH_PIXELS: '1048576' });
    const run = { width: 1024, height: 1024, frames: 1, rows: 2 };
    expect(plan.models).toEqual([
      {
        title: 'SDXL',
        family: 'SDXL',
        run,
        networks: await sdxl.planMemory?.({ path }, expectedDialects('cpu', 'fp32'), run),
      },
    ]);
    expect([plan.isReleased, plan.precision, plan.language]).toEqual([false, 'fp32', undefined]);
    expect(plan.devices).toEqual([{ bytes: 15 * 2 ** 30, fits: { 'everything stays open': 'no' } }]);
  });

  it('prints the networks, the sums and what is not counted', async () => {
    const env = { SDXL_PATH: inject('tinySdxl'), WAN_PATH: inject('tinyWan') };
    const { code, stdout } = await darkroom(['doctor', '--plan', '--memory', '16GB'], { env });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^SDXL, 64x64, batch 16 \(guided\)$/m);
    expect(stdout).toMatch(/^ {2}unet +fp16 +always +0\.0\d GB +0\.0\d GB +0\.0\d GB$/m);
    expect(stdout).toMatch(/^ {2}text_encoder +bf16 +per prompt /m);
    expect(stdout).toMatch(/^ {2}WAN alone .* yes$/m);
    expect(stdout).toMatch(/^not counted: .*context.*cuDNN/m);
    // Without a language model nothing is said about one.
    expect(stdout).not.toContain('Qwen');
  });

  it.each<[string, readonly string[], string]>([
    ['no size', ['--plan', '--memory', 'lots'], 'must be a size above 0 in GB or GiB, for example 48GB.'],
    ['a size without a unit', ['--plan', '--memory', '48'], 'must be a size above 0 in GB or GiB, for example 48GB.'],
    ['nothing', ['--plan', '--memory', '0GB'], 'must be a size above 0 in GB or GiB, for example 48GB.'],
    ['another provider', ['--plan', '--provider', 'gpu'], 'Allowed choices are cpu, webgpu, cuda, tensorrt.'],
    ['another precision', ['--plan', '--precision', 'fp8'], 'Allowed choices are auto, fp32, fp16, bf16.'],
    ['a size without a plan', ['--memory', '48GB'], '--memory is for a memory plan; add --plan'],
  ])('refuses %s in one sentence', async (_, args, sentence) => {
    const { code, stdout, stderr } = await darkroom(['doctor', ...args]);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr.trimEnd().split('\n')).toEqual([expect.stringContaining(sentence)]);
  });

  it('names a checkpoint that is not there', async () => {
    const { code, stderr } = await darkroom(['doctor', '--plan'], { env: { WAN_PATH: '/nowhere/wan' } });
    expect([code, stderr]).toEqual([1, 'darkroom: /nowhere/wan does not exist\n']);
  });
});
