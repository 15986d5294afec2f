import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { variantKey } from '../../src/pipelines/common/batching.js';
import type { GenerationRequest, PipelineEvent, RequestLora } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { VariantPipeline } from '../../src/pipelines/variant-pipeline.js';
import { cpuBackend, cpuBackendOf } from '../support/cpu-backend.js';

const path = fileURLToPath(new URL('../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url));
const PLENTY = Number.MAX_SAFE_INTEGER;

let base: SdxlPipeline;
beforeAll(async () => {
  base = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(() => base.dispose());

const lora = (weight: number): RequestLora => ({ name: 'ink', path, revision: '1', weight, textEncoderWeight: weight });
const request = (weight: number): GenerationRequest => ({
  prompt: 'a red circle',
  negativePrompt: undefined,
  width: 64,
  height: 64,
  steps: 1,
  guidanceScale: 1,
  scheduler: 'euler',
  seeds: [1],
  loras: [lora(weight)],
});
const keyOf = (weight: number) => variantKey(request(weight));

async function run(pipeline: VariantPipeline, weight: number): Promise<PipelineEvent['kind'][]> {
  const kinds: PipelineEvent['kind'][] = [];
  const job = { request: request(weight), signal: new AbortController().signal };
  for await (const { kind } of pipeline.generate([job])) kinds.push(kind);
  return kinds;
}

describe('VariantPipeline', () => {
  it('keeps the variants used last, up to its count, beside the bare model', async () => {
    const pipeline = new VariantPipeline(base, { count: 2, freeBytes: async () => PLENTY });
    for (const weight of [0.1, 0.2, 0.1, 0.3]) await run(pipeline, weight);
    expect(pipeline.variants).toMatchObject({ keys: [keyOf(0.1), keyOf(0.3)], builds: 3 });
    expect(await run(pipeline, 0)).not.toContain('building');
    expect(await run(pipeline, 0.2)).toContain('building');
    expect(pipeline.variants).toMatchObject({ keys: [keyOf(0.3), keyOf(0.2)], builds: 4 });
  });

  it('disposes of other variants where memory is short, even below its count', async () => {
    const pipeline: VariantPipeline = new VariantPipeline(base, {
      count: 4,
      freeBytes: async () => (pipeline.variants.keys.length > 1 ? base.variantBytes - 1 : base.variantBytes),
    });
    for (const weight of [0.1, 0.2, 0.3]) await run(pipeline, weight);
    expect(pipeline.variants.keys).toEqual([keyOf(0.2), keyOf(0.3)]);
  });

  it('names the missing memory where there is no room for a variant', async () => {
    const pipeline = new VariantPipeline(base, { count: 2, freeBytes: async () => 1_000_000 });
    await expect(run(pipeline, 0.1)).rejects.toMatchObject({
      reason: 'OUT_OF_MEMORY',
      message: expect.stringMatching(
        /^Insufficient VRAM for generation: the model with these LoRAs needs up to 0\.0 GB beside the bare one, 0\.0 GB are free/,
      ) as string,
    });
    expect(pipeline.variants).toMatchObject({ keys: [], builds: 0 });
    expect(await run(pipeline, 0)).toContain('image');
  });

  it('says for each job what its own UNet computed in', async () => {
    const half = cpuBackendOf({ attention: 'fused', compute: 'f16', emulated: true }, defaultDialect);
    const bare = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: half });
    const pipeline = new VariantPipeline(bare, { count: 2, freeBytes: async () => PLENTY });
    const unets: (string | undefined)[] = [];
    // With the second weight the UNet's weights are beyond float16.
    for (const weight of [0.1, 1e6, 0]) {
      const job = { request: request(weight), signal: new AbortController().signal };
      for await (const event of pipeline.generate([job])) {
        if (event.kind !== 'done') continue;
        unets.push(event.precisions?.find(({ network }) => network === 'unet')?.precision);
      }
    }
    expect(unets).toEqual(['fp16', 'fp32', 'fp16']);
    expect(pipeline.info.precisions).toContainEqual({ network: 'unet', precision: 'fp16' });
    await pipeline.dispose();
  });
});
