import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

/** Chromium's Vulkan driver on the CPU: WebGPU without a GPU. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

describe('goldens on WebGPU', () => {
  it.skipIf(!existsSync(SWIFTSHADER)).each([
    [
      'sdxl-tiny',
      'prompts, one with a mask, UNet, VAE and one picture of each kind',
      /^(prompts|compel\.c2$|unet|vae|txt2img2|img2img1)/,
      14,
    ],
    ['sdxl-tiny-single', 'the prompt and the picture', /./, 2],
    [
      'wan-tiny',
      'a prompt, transformer, VAE both ways and a clip',
      /^(prompt1\.embeds|transformer\.t999|vae\.(dec|enc)5|video1)$/,
      5,
    ],
    ['wan-vace-tiny', 'the transformer and a clip with the look of a picture', /^(transformer\.s0\.5|v3)$/, 2],
    ['wan-i2v-tiny', 'the transformer and the image encoder', /^(transformer\.t250|image\.odd)$/, 2],
  ] as const)(
    '%s: %s pass on SwiftShader',
    async (folder, _, only, count) => {
      const main = fileURLToPath(new URL('../../dist/test/conformance/main.js', import.meta.url));
      const env = {
        ...process.env,
        VK_DRIVER_FILES: SWIFTSHADER,
        XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? '/tmp',
      };
      const { stdout } = await promisify(execFile)(
        process.execPath,
        [
          main,
          fileURLToPath(new URL(`../fixtures/goldens/${folder}`, import.meta.url)),
          '--device',
          'webgpu',
          '--only',
          only.source,
        ],
        { env },
      );
      expect(stdout).toContain(`${count} passed, 0 failed, 0 skipped`);
    },
    600_000,
  );
});
