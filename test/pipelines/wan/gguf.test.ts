import { copyFile, readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { glanceAt } from '../../../src/pipelines/checkpoint-glance.js';
import type { WanSource } from '../../../src/pipelines/wan/checkpoint/checkpoint.js';
import { originalTransformerName } from '../../../src/pipelines/wan/checkpoint/original-layout.js';
import { wan } from '../../../src/pipelines/wan/family.js';
import { inspectWan } from '../../../src/pipelines/wan/inspect.js';
import { loadWanNetworks } from '../../../src/pipelines/wan/networks.js';
import { createWanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { QuantisedLinears } from '../../../src/runtime/model-cache/quantised-linears.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { writeQuantized } from '../../support/gguf-file.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';
import { TRANSFORMER, tinyVideo } from '../../support/tiny-wan.js';

const TEXT_ENCODER = 'text_encoder/model.safetensors';

/** Names of transformers' UMT5 as llama.cpp's converter writes them. */
const LLAMA_NAMES: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/^shared\./, 'token_embd.'],
  [/^encoder\.final_layer_norm\./, 'enc.output_norm.'],
  [/^encoder\.block\.(\d+)\./, 'enc.blk.$1.'],
  [/layer\.0\.SelfAttention\.relative_attention_bias\./, 'attn_rel_b.'],
  [/layer\.0\.SelfAttention\.([qkvo])\./, 'attn_$1.'],
  [/layer\.0\.layer_norm\./, 'attn_norm.'],
  [/layer\.1\.layer_norm\./, 'ffn_norm.'],
  [/layer\.1\.DenseReluDense\.wi_0\./, 'ffn_gate.'],
  [/layer\.1\.DenseReluDense\.wi_1\./, 'ffn_up.'],
  [/layer\.1\.DenseReluDense\.wo\./, 'ffn_down.'],
];
const llamaName = (key: string) => LLAMA_NAMES.reduce((name, [pattern, to]) => name.replace(pattern, to), key);

interface Written {
  readonly gguf: WanSource;
  readonly safetensors: WanSource;
  readonly weightsCache: string;
}

/** The tiny WAN with its transformer or its text encoder in GGUF, and with the same numbers in safetensors. */
async function write(prefix = ''): Promise<Written> {
  const folder = await tempFolder();
  const tiny = inject('tinyWan');
  const rest = {
    vae: join(tiny, 'vae'),
    tokenizer: join(tiny, 'tokenizer'),
    weightsCache: join(folder, 'cache'),
  };
  // The number of heads of a model this small does not follow from shapes.
  await writeFile(join(folder, 'config.json'), JSON.stringify({ num_heads: 2 }));
  const gguf = { path: join(folder, 'wan-Q8_0.gguf'), textEncoder: join(folder, 'umt5.gguf'), ...rest };
  const safetensors = { path: join(folder, 'wan.safetensors'), textEncoder: join(folder, 'umt5.safetensors'), ...rest };
  const transformer = await readTensorFile(join(tiny, TRANSFORMER));
  const rename = (key: string) => prefix + originalTransformerName(key);
  const same = await writeQuantized(gguf.path, transformer, rename);
  await writeTensorFile(safetensors.path, new Map([...same].map(([key, tensor]) => [rename(key), tensor])));
  const encoder = await readTensorFile(join(tiny, TEXT_ENCODER));
  await writeTensorFile(safetensors.textEncoder, await writeQuantized(gguf.textEncoder, encoder, llamaName));
  return { gguf, safetensors, weightsCache: rest.weightsCache };
}

describe('a WAN whose transformer and text encoder are GGUF files', () => {
  it.each(['', 'model.diffusion_model.'])(
    'predicts what the same numbers in safetensors do, with prefix "%s"',
    async (prefix) => {
      const { gguf, safetensors } = await write(prefix);
      const latents = hashTensor('noise', [16, 2, 4, 6]);
      const predict = async (source: WanSource) => {
        const networks = await loadWanNetworks({ ...source, backend: cpuBackend });
        const input = {
          latents,
          size: { frames: 2, height: 4, width: 6 },
          timestep: 321,
          texts: [hashTensor('a', [7, 32])],
        };
        return networks.denoiser.predict(input).finally(() => networks.release());
      };
      const [ours, expected] = [await predict(gguf), await predict(safetensors)];
      expect(ours).toEqual(expected);
      // The numbers are those of eight bits, not the ones that they were made of.
      expect(ours).not.toEqual(await predict({ path: inject('tinyWan') }));
    },
  );

  it('makes the same frames, from its own text states', async () => {
    const { gguf, safetensors, weightsCache } = await write();
    const frames = async (source: WanSource) => {
      const pipeline = await createWanPipeline({ ...source, backend: cpuBackend });
      const found: Uint8Array[] = [];
      const job = { request: tinyVideo, signal: new AbortController().signal };
      for await (const event of pipeline.generate([job])) if (event.kind === 'frames') found.push(...event.frames);
      await pipeline.dispose();
      return found;
    };
    const ours = await frames(gguf);
    expect(await readdir(weightsCache)).toHaveLength(2);
    expect(ours).toEqual(await frames(safetensors));
    expect(ours).toHaveLength(9);
    expect(ours).not.toEqual(await frames({ ...safetensors, textEncoder: join(inject('tinyWan'), 'text_encoder') }));
  });

  it('computes in 8 bits what the same numbers in safetensors do', async () => {
    const { gguf, safetensors } = await write();
    const quantised = new QuantisedLinears({ folder: join(await tempFolder(), 'int8'), maxBytes: 1e9, log: () => {} });
    const outputs: Float32Array[] = [];
    for (const source of [gguf, safetensors]) {
      const networks = await loadWanNetworks({ ...source, backend: { ...cpuBackend, quantised } });
      expect(networks.info.precisions).toContainEqual({ network: 'transformer', precision: 'int8' });
      const size = { frames: 2, height: 4, width: 6 };
      const input = {
        latents: hashTensor('noise', [16, 2, 4, 6]),
        size,
        timestep: 321,
        texts: [hashTensor('a', [7, 32])],
      };
      outputs.push(await networks.denoiser.predict(input).finally(() => networks.release()));
    }
    expect(outputs[0]).toEqual(outputs[1]);
  });

  it('is inspected without being converted', async () => {
    const { gguf, weightsCache } = await write();
    expect(wan.recognises(await glanceAt(gguf.path))).toBe(true);
    const { info, layout, variant, networks } = await inspectWan(gguf);
    expect({ layout, variant, storage: info.storage, unused: info.unused }).toEqual({
      layout: 'original',
      variant: 'text_to_video',
      storage: 'Q8_0 as F16',
      unused: [],
    });
    expect(networks.transformer?.files).toEqual([gguf.path]);
    expect(networks.text_encoder?.files).toEqual([gguf.textEncoder]);
    await expect(stat(weightsCache)).rejects.toThrow('ENOENT');
  });

  it('is refused in a sentence where it is another model, and not converted where tensors are missing', async () => {
    const { gguf, weightsCache } = await write();
    await expect(inspectWan({ ...gguf, path: gguf.textEncoder ?? '' })).rejects.toThrow(
      'has no patch_embedding.* and blocks.* tensors: it is not a WAN transformer',
    );
    const tensors = await readTensorFile(join(inject('tinyWan'), TRANSFORMER));
    tensors.delete('blocks.1.ffn.net.2.weight');
    await writeQuantized(gguf.path, tensors, originalTransformerName);
    await expect(loadWanNetworks({ ...gguf, backend: cpuBackend })).rejects.toThrow(
      'transformer: missing: blocks.1.ffn.net.2.weight [48, 96]',
    );
    await expect(stat(weightsCache)).rejects.toThrow('ENOENT');
    await expect(inspectWan({ ...gguf, path: dirname(gguf.path) })).rejects.toThrow(
      '.gguf; get the .safetensors variant of this checkpoint, or name the .gguf file itself',
    );
    // Every other reader says what it is.
    const path = join(await tempFolder(), 'lora.safetensors');
    await copyFile(gguf.path, path);
    await expect(inspectWan({ ...gguf, path })).rejects.toThrow(/is a GGUF file; /);
  });
});
