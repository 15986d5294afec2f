import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { softwareVulkan } from '../support/software-vulkan.js';

const vulkan = softwareVulkan();

/** Runs the cases of a folder in a process of their own. */
async function conformance(folder: string, only: RegExp, ...options: string[]): Promise<string> {
  const main = fileURLToPath(new URL('../../dist/test/conformance/main.js', import.meta.url));
  const goldens = fileURLToPath(new URL(`../fixtures/goldens/${folder}`, import.meta.url));
  const args = [main, goldens, '--device', 'webgpu', '--only', only.source, ...options];
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    env: { ...process.env, ...vulkan?.env },
  }).catch(
    // A failed case ends the program with an error; its lines say which.
    (error: { readonly stdout: string }) => error,
  );
  return stdout;
}

describe(`goldens on WebGPU (${vulkan?.name ?? 'no software Vulkan'})`, () => {
  it.skipIf(vulkan === undefined).each([
    ['sdxl-tiny', 'prompts, one with a mask, UNet, and VAE both ways', /^(prompts|compel\.c2$|unet|vae)/, 12],
    [
      'wan-tiny',
      'a prompt, transformer, VAE both ways and a clip',
      /^(prompt1\.embeds|transformer\.t999|vae\.(dec|enc)5|video1)$/,
      5,
    ],
    ['wan-vace-tiny', 'the transformer', /^transformer\.s0\.5$/, 1],
    ['wan-i2v-tiny', 'the image encoder', /^image\.odd$/, 1],
    [
      'wan-ti2v-tiny',
      'the transformer with a clean frame, and the decoder',
      /^(transformer\.t999\.clean|vae\.dec9)$/,
      2,
    ],
  ] as const)(
    '%s: %s pass',
    async (folder, _, only, count) => {
      expect(await conformance(folder, only)).toContain(`${count} passed, 0 failed, 0 skipped`);
    },
    600_000,
  );
});

describe('goldens on WebGPU in float16', () => {
  // The other networks pass by hand (docs/reference/precision.md): a driver on the CPU compiles their programs for minutes.
  it.skipIf(!vulkan?.hasHalf).each([
    ['sdxl-tiny', /^(prompts\[0\]|unet.t999)/, 2],
    ['wan-tiny', /^transformer\.t999$/, 1],
  ] as const)(
    '%s stays within the bounds of 16-bit sums',
    async (folder, only, count) => {
      expect(await conformance(folder, only, '--precision', 'fp16')).toContain(`${count} passed, 0 failed, 0 skipped`);
    },
    600_000,
  );
});
