import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, it } from 'vitest';
import { planarFrames } from '../../../src/pipelines/common/frame-form.js';
import { rotaryTables } from '../../../src/pipelines/wan/model/rotary-tables.js';
import { loadWanNetworks, type WanNetworks } from '../../../src/pipelines/wan/networks.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { sharedTinyWan } from '../../support/tiny-wan.js';

let networks: WanNetworks;
beforeAll(async () => {
  const { path, remove } = await sharedTinyWan('F32');
  networks = await loadWanNetworks({ path, backend: cpuBackend });
  return async () => {
    await networks.release();
    await remove();
  };
});

async function decoded(latents: Float32Array, size: Size): Promise<Float32Array[]> {
  const frames: Float32Array[] = [];
  for await (const { frames: chunk } of networks.autoencoder.decodeChunks(planarFrames, latents, size))
    frames.push(...chunk);
  return frames;
}

interface Size {
  readonly frames: number;
  readonly height: number;
  readonly width: number;
}

function worst(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  expect(a.map(({ length }) => length)).toEqual(b.map(({ length }) => length));
  return Math.max(...a.map((frame, f) => Math.max(...frame.map((value, i) => Math.abs(value - (b[f]?.[i] ?? 9))))));
}

/** Latents [16, F, h, w] of a video whose frames are `size` pixels. */
function latentsOf({ frames, height, width }: Size): Float32Array {
  return hashTensor('video', [16, 1 + (frames - 1) / 4, height / 8, width / 8]);
}

describe('the VAE', () => {
  it('decodes a frame from the latents up to its own: later ones do not change it', async () => {
    const [whole, part] = [81, 41].map((frames) => ({ frames, height: 16, width: 24 })) as [Size, Size];
    const latents = latentsOf(whole);
    const begun = latents.filter((_, i) => Math.floor(i / 6) % 21 < 11);
    const frames = await decoded(latents, whole);
    expect(frames).toHaveLength(81);
    expect(worst(await decoded(begun, part), frames.slice(0, 41))).toBe(0);
  });

  it('yields the first frame alone and then four at a time, with values from -1 to 1', async () => {
    const size = { frames: 9, height: 16, width: 8 };
    const counts: number[] = [];
    for await (const { frames: chunk } of networks.autoencoder.decodeChunks(planarFrames, latentsOf(size), size)) {
      counts.push(chunk.length);
      for (const frame of chunk) {
        expect(frame).toHaveLength(3 * 16 * 8);
        expect(Math.max(...frame.map(Math.abs))).toBeLessThanOrEqual(1);
      }
    }
    expect(counts).toEqual([1, 4, 4]);
  });

  it('carries nothing from one video to the next, even after one that was stopped', async () => {
    const size = { frames: 9, height: 16, width: 16 };
    const latents = latentsOf(size);
    const whole = await decoded(latents, size);
    for await (const _ of networks.autoencoder.decodeChunks(planarFrames, latents, size)) break;
    expect(worst(await decoded(latents, size), whole)).toBe(0);
  });

  it('takes no more memory for a video of 161 frames than for one of 21', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const peak = async (frames: number, keeps = false) => {
      const size = { frames, height: 96, width: 96 };
      const kept: unknown[] = [];
      let most = 0;
      for await (const { frames: chunk } of networks.autoencoder.decodeChunks(planarFrames, latentsOf(size), size)) {
        if (keeps) kept.push(chunk);
        collect();
        most = Math.max(most, process.memoryUsage().rss);
      }
      return most / 2 ** 20;
    };
    await peak(5);
    const short = await peak(21);
    expect((await peak(161)) - short).toBeLessThan(12);
    // Kept, its frames take 17 MiB: the measure sees them.
    expect((await peak(161, true)) - short).toBeGreaterThan(14);
  });

  it('encodes frames from an async source, to the latents that the transformer takes', async () => {
    const size = { height: 16, width: 24 };
    const frames = Array.from({ length: 9 }, (_, f) => hashTensor(`frame ${f}`, [3, 16, 24]));
    async function* later() {
      for (const frame of frames) yield await Promise.resolve(frame);
    }
    const means = await networks.autoencoder.encode(frames, size);
    expect(means).toHaveLength(16 * 3 * 2 * 3);
    expect(await networks.autoencoder.encode(later(), size)).toEqual(means);
    const latents = await networks.autoencoder.encodeLatents(frames, size);
    const { latents_mean: mean, latents_std: deviation } = networks.config.vae;
    const last = means.length - 1;
    expect(latents[last]).toBeCloseTo(((means[last] ?? 0) - (mean[15] ?? 0)) / (deviation[15] ?? 1), 5);
    // Nothing later than a frame goes into its latents.
    const [first = new Float32Array()] = frames;
    const alone = await networks.autoencoder.encode([first], size);
    const firsts = Array.from({ length: 16 }, (_, c) => means.subarray(c * 18, c * 18 + 6));
    expect(worst([alone], [Float32Array.from(firsts.flatMap((plane) => [...plane]))])).toBeLessThan(1e-6);
  });

  it.each([0, 4, 7])('refuses to encode %i frames', async (count) => {
    const frames = Array.from({ length: count }, () => new Float32Array(3 * 64));
    await expect(networks.autoencoder.encode(frames, { height: 8, width: 8 })).rejects.toThrow(
      /frames are left over: a video has one and a multiple of four$/,
    );
  });
});

describe('the transformer', () => {
  const size = { frames: 2, height: 4, width: 6 };
  const video = hashTensor('noise', [16, 2, 4, 6]);
  const predict = (latents: Float32Array, texts: readonly Float32Array[]) =>
    networks.denoiser.predict({ latents, size, timestep: 321, texts });

  it('computes the same for a batch as for its items one by one', async () => {
    const texts = [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])];
    const [one, two] = [await predict(video, texts.slice(0, 1)), await predict(video, texts.slice(1))];
    const both = await predict(Float32Array.from([...video, ...video]), texts);
    const halves = [both.subarray(0, video.length), both.subarray(video.length)];
    expect(worst(halves, [one, two])).toBeLessThan(1e-5);
    expect(worst([one], [two])).toBeGreaterThan(1e-3);
  });

  it('attends to all 512 positions, with zeros after the text', async () => {
    const text = hashTensor('a', [7, 32]);
    const filled = new Float32Array(512 * 32);
    filled.set(text);
    expect(await predict(video, [filled])).toEqual(await predict(video, [text]));
    await expect(predict(video, [new Float32Array(513 * 32)])).rejects.toThrow(
      'a text of 513 positions, the model takes 512',
    );
  });

  it('encodes the frame, row and column of a token in its angles', () => {
    // 24 channels: 4 pairs turn with the frame, 4 with the row, 4 with the column.
    const { cos, sin } = rotaryTables(24, { frames: 3, height: 2, width: 2 });
    const token = (2 * 2 + 1) * 2 + 0;
    const angles = Array.from({ length: 12 }, (_, i) => Math.atan2(sin[token * 12 + i] ?? 0, cos[token * 12 + i] ?? 0));
    const turns = [1, 0.1, 0.01, 0.001];
    const expected = [...turns.map((turn) => 2 * turn), ...turns, 0, 0, 0, 0];
    expect(angles.map((angle, i) => Math.abs(angle - (expected[i] ?? 9)) < 1e-6)).not.toContain(false);
  });

  it('gives the frame axis the channels that do not divide by three', () => {
    // The released model's 128 channels: 22 pairs of time, 21 of each side.
    const { sin } = rotaryTables(128, { frames: 2, height: 1, width: 1 });
    expect([...sin.subarray(64)].filter((value) => value !== 0)).toHaveLength(22);
  });
});
