import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type VideoOptions, VideoWriter } from '../../src/media/video-writer.js';
import { isAlive } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

const options: VideoOptions = { width: 64, height: 48, fps: 16, format: 'mp4' };
/** A square that moves to the right. */
const frame = (i: number) =>
  Uint8Array.from({ length: 64 * 48 * 3 }, (_, at) => {
    const x = Math.floor(at / 3) % 64;
    return at % 3 === 0 && x >= i && x < i + 16 ? 230 : 20;
  });

/** A folder of the test for the writer's files. */
async function scratch(): Promise<string> {
  const folder = await tempFolder();
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  onTestFinished(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  });
  expect(tmpdir()).toBe(folder);
  return folder;
}

async function clipOf(frames: number, more: Partial<VideoOptions> = {}): Promise<Buffer> {
  const writer = await VideoWriter.start('ffmpeg', { ...options, ...more });
  for (let i = 0; i < frames; i += 1) await writer.write(frame(i));
  return Buffer.from((await writer.finish()).bytes);
}

async function probe(file: Buffer): Promise<Record<string, Record<string, string>>> {
  const path = join(await tempFolder(), 'clip.mp4');
  await writeFile(path, file);
  const args = ['-v', 'error', '-count_frames', '-show_streams', '-show_format', '-of', 'json', path];
  const { stdout } = await promisify(execFile)('ffprobe', args);
  const { streams, format } = JSON.parse(stdout);
  return { stream: streams[0], tags: format.tags };
}

describe('VideoWriter', () => {
  it('writes H.264 in yuv420p with every frame, and its index in front', async () => {
    const folder = await scratch();
    const file = await clipOf(17);
    const { stream } = await probe(file);
    expect(stream).toMatchObject({
      codec_name: 'h264',
      pix_fmt: 'yuv420p',
      r_frame_rate: '16/1',
      nb_read_frames: '17',
      width: 64,
      height: 48,
      color_space: 'bt709',
    });
    expect(file.indexOf('moov')).toBeLessThan(file.indexOf('mdat'));
    expect((await readdir(folder)).filter((name) => name.startsWith('darkroom-video-'))).toEqual([]);
  });

  it('is smaller at a higher CRF', async () => {
    expect((await clipOf(9, { crf: 40 })).length).toBeLessThan((await clipOf(9, { crf: 5 })).length);
  });

  it('has metadata if it is given', async () => {
    const metadata = { comment: 'a red kite\nSteps: 25, Seed: 7', isProvenanceMarked: true };
    const { tags } = await probe(await clipOf(5, { metadata }));
    expect(tags?.comment).toBe(metadata.comment);
    expect(tags?.description).toContain('trainedAlgorithmicMedia');
    expect((await probe(await clipOf(5))).tags?.comment).toBeUndefined();
  });

  it('writes an animated WebP', async () => {
    const file = await clipOf(5, { format: 'webp' });
    expect([file.toString('latin1', 0, 4), file.toString('latin1', 8, 12)]).toEqual(['RIFF', 'WEBP']);
    expect(file.includes('ANIM')).toBe(true);
  });

  it('leaves no process and no file when it is aborted', async () => {
    const folder = await scratch();
    const writer = await VideoWriter.start('ffmpeg', options);
    await writer.write(frame(0));
    await writer.abort();
    expect(isAlive(writer.pid ?? 0)).toBe(false);
    expect(await readdir(folder)).toEqual([]);
  });

  it('fails with the signal when ffmpeg is killed, and cleans up', async () => {
    const folder = await scratch();
    const writer = await VideoWriter.start('ffmpeg', options);
    await writer.write(frame(0));
    process.kill(writer.pid ?? 0, 'SIGKILL');
    const go = async () => {
      for (let i = 0; i < 10_000; i += 1) await writer.write(frame(i));
    };
    await expect(go()).rejects.toMatchObject({
      reason: 'ENCODING_FAILED',
      message: expect.stringContaining('ffmpeg ended with signal SIGKILL while it wrote the video'),
    });
    expect(await readdir(folder)).toEqual([]);
  });

  it("fails with ffmpeg's message, for example for a size that H.264 cannot have", async () => {
    const folder = await scratch();
    const writer = await VideoWriter.start('ffmpeg', { ...options, width: 63 });
    const go = async () => {
      for (let i = 0; i < 20; i += 1) await writer.write(new Uint8Array(63 * 48 * 3));
      await writer.finish();
    };
    await expect(go()).rejects.toMatchObject({
      reason: 'ENCODING_FAILED',
      message: expect.stringMatching(/exit code 1.*: .+/),
    });
    expect(await readdir(folder)).toEqual([]);
  });

  it("fails with ffmpeg's message when the disk is full, and cleans up", async () => {
    // As on a full disk, a write fails. The signal of the limit is ignored, so that ffmpeg sees the failure.
    const ffmpeg = join(await tempFolder(), 'ffmpeg');
    const folder = await scratch();
    await writeFile(ffmpeg, '#!/bin/sh\ntrap "" XFSZ\nulimit -f 4\nexec ffmpeg "$@"\n', { mode: 0o755 });
    const writer = await VideoWriter.start(ffmpeg, { ...options, crf: 0 });
    const go = async () => {
      // Noise, which does not compress.
      for (let i = 0; i < 200; i += 1) await writer.write(randomBytes(64 * 48 * 3));
      await writer.finish();
    };
    await expect(go()).rejects.toMatchObject({
      reason: 'ENCODING_FAILED',
      message: expect.stringMatching(/ffmpeg ended with .*: .+/),
    });
    expect(await readdir(folder)).toEqual([]);
  });

  it('fails if the program does not exist', async () => {
    const writer = await VideoWriter.start('/nowhere/ffmpeg', options);
    await expect(writer.finish()).rejects.toMatchObject({
      reason: 'ENCODING_FAILED',
      message: expect.stringContaining('ENOENT'),
    });
  });
});
