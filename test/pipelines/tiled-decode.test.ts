import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { type FrameForm, planarFrames, rgbFrames } from '../../src/pipelines/common/frame-form.js';
import { rgbFromImage } from '../../src/pipelines/common/rgb-image.js';
import { cutTile, TileBlend, TileLayout, tileSides, tilesOf } from '../../src/pipelines/common/tiles.js';
import { layoutsOf, mostPixelsOn, partsOf } from '../../src/pipelines/frame-parts.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { parseVaeConfig } from '../../src/pipelines/wan/model/config.js';
import { createWanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { decoderParts, windowOf } from '../../src/pipelines/wan/windows.js';
import type { NetworkSession } from '../../src/runtime/session.js';
import type { Tile } from '../../src/std/plane.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { seeded } from '../support/seeded.js';
import { tempFolder } from '../support/temp-folder.js';

describe('tiles', () => {
  it.each([
    [128, 128, 64],
    [96, 40, 32],
    [65, 130, 64],
    [200, 17, 16],
  ])(
    'of %ix%i latents at a side of %i cover all of it, by more than a quarter twice at each seam',
    (width, height, side) => {
      const tiles = tilesOf({ width, height }, side);
      const covered = new Uint8Array(width * height);
      for (const { x, y, width: w, height: h } of tiles) {
        expect([w, h]).toEqual([Math.min(side, width), Math.min(side, height)]);
        for (let row = y; row < y + h; row += 1) covered.fill(1, row * width + x, row * width + x + w);
      }
      expect(covered.every((value) => value === 1)).toBe(true);
      const columns = [...new Set(tiles.map(({ x }) => x))];
      for (const [i, x] of columns.entries())
        if (i > 0) expect((columns[i - 1] ?? 0) + side - x).toBeGreaterThanOrEqual(side / 4 - 1);
    },
  );

  it('put together are the values that they were cut from', () => {
    const size = { width: 50, height: 33 };
    const values = Float32Array.from({ length: 3 * 50 * 33 }, (_, i) => Math.sin(i));
    const layout = new TileLayout(size, 1, 16);
    const blend = new TileBlend(layout);
    for (const tile of layout.tiles) blend.add(tile, cutTile(values, size, tile));
    for (const [i, value] of blend.image().entries()) expect(value).toBeCloseTo(values[i] ?? 0, 5);
  });

  it('have the sides that split a size', () => {
    expect(tileSides({ width: 192, height: 64 })).toEqual([128, 64, 32, 16]);
    expect(tileSides({ width: 32, height: 32 })).toEqual([16]);
    expect(tileSides({ width: 16, height: 16 })).toEqual([]);
  });
});

/** Mean difference of two images, of 255. */
function difference(a: Float32Array, b: Float32Array, size: { width: number; height: number }): number {
  const [x, y] = [rgbFromImage(a, size), rgbFromImage(b, size)];
  return x.reduce((sum, value, i) => sum + Math.abs(value - (y[i] ?? 0)), 0) / x.length;
}

function noise(length: number): Float32Array {
  const random = seeded(3);
  return Float32Array.from({ length }, () => 3.46 * (random.next() - 0.5));
}

/** A red circle and a yellow box on blue: planar [3, size, size] of -1 to 1. */
function drawing(size: number): Float32Array {
  const image = new Float32Array(3 * size * size);
  for (let i = 0; i < size * size; i += 1) {
    const [u, v] = [(i % size) / size, Math.floor(i / size) / size];
    const isCircle = (u - 0.4) ** 2 + (v - 0.45) ** 2 < 0.07;
    const isBox = u > 0.6 && u < 0.9 && v > 0.6 && v < 0.85;
    const colour = isBox ? [0.95, 0.9, 0.1] : isCircle ? [0.9, 0.1, 0.1] : [0.1, 0.2, 0.9];
    for (const [k, value] of colour.entries()) image[k * size * size + i] = 2 * value - 1;
  }
  return image;
}

// Norms and attention see a tile instead of the whole image: the smaller the tile, the larger the difference.
describe('a decode in tiles', () => {
  it("is the untiled one within 4 of 255 on average, with the demo model's VAE and a drawing", async () => {
    const pipeline = await createSdxlPipeline({ path: await findAsset('demo-sdxl'), backend: cpuBackend });
    const { autoencoder } = pipeline.networks;
    const size = { width: 512, height: 512 };
    const latents = await autoencoder.encodeLatents(drawing(512), size);
    const whole = await autoencoder.decodeWhole(latents, size);
    expect(difference(whole, await autoencoder.decodeInTiles(latents, size, 32), size)).toBeLessThan(4);
    await pipeline.dispose();
  });

  it('is within 2 of 255 above 1024 pixels, in tiles of 1024', async () => {
    const pipeline = await createSdxlPipeline({ path: inject('tinySdxl'), backend: cpuBackend });
    const { autoencoder } = pipeline.networks;
    const size = { width: 1152, height: 256 };
    const latents = noise((4 * 1152 * 256) / 64);
    const whole = await autoencoder.decodeWhole(latents, size);
    expect(difference(whole, await autoencoder.decodeInTiles(latents, size, 128), size)).toBeLessThan(2);
    await pipeline.dispose();
  });
});

describe('the parts of frames', () => {
  it.each([
    [104, 60, 4096, 2],
    [160, 90, 4096, 4],
    [160, 88, 1024, 14],
    [64, 64, 4096, 1],
    [7, 3, 4, 6],
  ])('of %ix%i latents, %i at most, are %i of equal size that cover all of them', (width, height, most, count) => {
    const parts = partsOf({ width, height }, most);
    const covered = new Uint8Array(width * height);
    for (const { x, y, width: w, height: h } of parts) {
      expect([w, h]).toEqual([parts[0]?.width, parts[0]?.height]);
      expect(w * h).toBeLessThanOrEqual(most);
      for (let row = y; row < y + h; row += 1) covered.fill(1, row * width + x, row * width + x + w);
    }
    expect(covered.every((value) => value === 1)).toBe(true);
    expect(parts).toHaveLength(count);
  });

  it('are as large as the frames where a card has the memory', () => {
    const latents = { width: 104, height: 60 };
    const partsOn = (cardBytes?: number) => layoutsOf(latents, { unit: 8, mostPixels: mostPixelsOn(cardBytes) })[0];
    expect(partsOn()).toHaveLength(3);
    expect(partsOn(80e9)).toHaveLength(3);
    expect(partsOn(141e9)).toEqual([{ x: 0, y: 0, ...latents }]);
  });

  // Each new size makes a device prepare its kernels again: 0.7 s for a decoder of the released size on an H200.
  it.each([
    [104, 60],
    [160, 88],
  ])('of %ix%i latents are all computed at one size', (width, height) => {
    const vae = parseVaeConfig({}, 'config.json');
    for (const layout of layoutsOf({ width, height }, decoderParts(vae, mostPixelsOn()))) {
      const sizes = layout.map((part) => windowOf(part, { width, height }, vae).sizes);
      expect(new Set(sizes.map((each) => JSON.stringify(each))).size).toBe(1);
    }
  });

  it.each(['wan-tiny', 'wan-ti2v-tiny'] as const)('of %s give the frames of a whole decode', async (name) => {
    const path = await writeSyntheticWan(join(await tempFolder(), name), name);
    const pipeline = await createWanPipeline({ path, backend: cpuBackend });
    const { autoencoder, config } = pipeline.networks;
    const size = { frames: 5, width: 256, height: 192 };
    const whole = autoencoder.latentSize(size);
    const latents = noise(config.vae.z_dim * whole.frames * whole.width * whole.height);
    const framesOf = async <T>(form: FrameForm<T>, parts?: readonly Tile[]) => {
      const frames: T[] = [];
      for await (const chunk of autoencoder.decodeWith(form, autoencoder.decoders, latents, size, { parts }))
        frames.push(...chunk.frames);
      return frames;
    };
    const expected = await framesOf(planarFrames);
    for (const most of [(whole.width * whole.height) / 2, 30]) {
      const frames = await framesOf(planarFrames, partsOf(whole, most));
      expect(frames).toHaveLength(5);
      for (const [i, frame] of frames.entries()) {
        const error = frame.reduce((worst, value, k) => Math.max(worst, Math.abs(value - (expected[i]?.[k] ?? 0))), 0);
        expect(error, `frame ${i} of parts of ${most}`).toBe(0);
      }
    }
    const rgb = await framesOf(rgbFrames, partsOf(whole, 60));
    expect(rgb.map((frame, i) => Buffer.compare(frame, rgbFromImage(expected[i] as Float32Array, size)))).toEqual(
      rgb.map(() => 0),
    );
    await pipeline.dispose();
  });

  it('are decoded while those of the chunk before are put into place, and a caller may leave at any time', async () => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-tiny');
    const pipeline = await createWanPipeline({ path, backend: cpuBackend });
    const { autoencoder, config } = pipeline.networks;
    const size = { frames: 13, width: 64, height: 64 };
    const { frames: latentFrames, width, height } = autoencoder.latentSize(size);
    const latents = noise(config.vae.z_dim * latentFrames * width * height);
    let begun = 0;
    const counted = (session: NetworkSession): NetworkSession => ({
      run: (feeds, options) => {
        begun += 1;
        return session.run(feeds, options);
      },
      release: () => session.release(),
    });
    const { first, later } = autoencoder.decoders;
    const decode = () =>
      autoencoder.decodeWith(rgbFrames, { first: counted(first), later: counted(later) }, latents, size);
    const seen: number[] = [];
    for await (const _ of decode()) seen.push(begun);
    expect(seen).toEqual([2, 3, 4, 4]);
    begun = 0;
    for await (const _ of decode()) break;
    expect(begun).toBe(2);
    await pipeline.dispose();
  });
});
