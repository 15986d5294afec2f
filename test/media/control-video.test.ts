import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { describe, expect, it, vi } from 'vitest';
import { checkControlVideo, decodeControlVideo } from '../../src/media/control-video.js';
import { refusalOf } from '../support/reference-errors.js';
import { tempFolder } from '../support/temp-folder.js';

/** Overwrites the 32-bit words behind the name, version and flags of an MP4's box. */
function writeWords(bytes: Buffer, box: string, words: readonly number[]): void {
  const from = bytes.indexOf(box) + 8;
  for (const [i, word] of words.entries()) bytes.writeUInt32BE(word, from + 4 * i);
}

const fit = { width: 64, height: 32, frames: 17, fps: 16 };
const never = new AbortController().signal;

/** A video of ffmpeg's own sources. */
async function video(name: string, source: string, ...options: readonly string[]): Promise<Uint8Array> {
  const path = join(await tempFolder(), name);
  await promisify(execFile)('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', source, ...options, path]);
  return readFile(path);
}

/** Grey that grows by one a frame: a frame's level is its number. */
const counting = (rate: number, seconds: number, size = '96x32') =>
  `color=black:size=${size}:rate=${rate}:duration=${seconds},format=rgb24,geq=r='N':g='N':b='N'`;
const lossless = ['-c:v', 'ffv1', '-pix_fmt', 'gbrp'];

async function framesOf(bytes: Uint8Array, more: Partial<typeof fit> = {}): Promise<Uint8Array[]> {
  const frames: Uint8Array[] = [];
  for await (const frame of decodeControlVideo('ffmpeg', bytes, { ...fit, ...more }, never)) frames.push(frame);
  return frames;
}

const levels = (frames: readonly Uint8Array[]) => frames.map((frame) => frame[0]);
const count = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

function expectNear(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  for (const [i, level] of expected.entries())
    expect(Math.abs((actual[i] ?? -999) - level), String(actual)).toBeLessThanOrEqual(tolerance);
}

/** Folders of this process's videos. */
const left = () => readdirSync(tmpdir()).filter((name) => name.startsWith(`darkroom-video-${process.pid}-`));

describe('decodeControlVideo()', () => {
  it('takes the frames of a video of the rate as they are, pixel for pixel', async () => {
    const bytes = await video('a.mkv', `testsrc2=size=64x32:rate=16:duration=2`, ...lossless);
    const path = join(await tempFolder(), 'raw');
    const own = ['-v', 'error', '-i', 'pipe:0', '-f', 'rawvideo', '-pix_fmt', 'rgb24', path];
    const child = promisify(execFile)('ffmpeg', own);
    child.child.stdin?.end(bytes);
    await child;
    const raw = await readFile(path);
    expect(Buffer.concat(await framesOf(bytes))).toEqual(raw.subarray(0, 17 * 64 * 32 * 3));
  });

  it('takes the nearest frames of a video of twice the rate, and each one twice of one of half', async () => {
    const twice = await framesOf(await video('a.mkv', counting(32, 2), ...lossless));
    // Matroska counts milliseconds: of two frames that are as near, either one is taken.
    for (const [i, level = -9] of levels(twice).entries()) expect(Math.abs(level - 2 * i)).toBeLessThanOrEqual(1);
    const half = await framesOf(await video('a.mkv', counting(8, 3), ...lossless));
    expect(levels(half)).toEqual(count(0, 16).map((i) => Math.floor(i / 2)));
  });

  it('a shorter video stands still at its last frame; a longer one is cut', async () => {
    const bytes = await video('a.mkv', counting(16, 1), ...lossless);
    expect(levels(await framesOf(bytes))).toEqual([...count(0, 15), 15]);
    expect(levels(await framesOf(bytes, { frames: 5 }))).toEqual(count(0, 4));
    expect(await checkControlVideo('ffmpeg', bytes, fit, never)).toBe(16);
    expect(await checkControlVideo('ffmpeg', bytes, { ...fit, frames: 5 }, never)).toBe(5);
  });

  it('a video that is shorter than a frame of the job is one frame', async () => {
    const bytes = await video('a.mp4', 'color=#204080:size=64x32:rate=60', '-frames:v', '1', '-pix_fmt', 'yuv420p');
    expect(await checkControlVideo('ffmpeg', bytes, fit, never)).toBe(1);
    expect(await framesOf(bytes)).toHaveLength(17);
  });

  // ffmpeg scales by way of YUV: a level may be lost.
  it('crops evenly to the shape, then scales', async () => {
    // Red, green and blue thirds, wide: the middle 2:1 of 4:1 is half red and blue at the sides, with green between.
    const thirds = `color=red:size=32x32:rate=16:duration=1[a];color=lime:size=64x32:rate=16:duration=1[b];color=blue:size=32x32:rate=16:duration=1[c];[a][b][c]hstack=3`;
    const [frame = new Uint8Array()] = await framesOf(await video('a.mkv', thirds, ...lossless), { frames: 1 });
    expect(frame).toHaveLength(64 * 32 * 3);
    expectNear([...frame.subarray(0, 3), ...frame.subarray(-3)], [0, 255, 0, 0, 255, 0], 2);
    // The same of 32x96, tall: the middle third.
    const tall = `color=red:size=32x32:rate=16:duration=1[a];color=lime:size=32x16:rate=16:duration=1[b];color=blue:size=32x32:rate=16:duration=1[c];[a][b][c]vstack=3`;
    const [middle = new Uint8Array()] = await framesOf(await video('a.mkv', tall, ...lossless), { frames: 1 });
    expectNear([...middle.subarray(0, 3), ...middle.subarray(-3)], [0, 255, 0, 0, 255, 0], 2);
  });

  it.each([
    ['mp4', 'a.mp4', ['-pix_fmt', 'yuv420p']],
    [
      'mp4 with its index at the front and sound',
      'a.mp4',
      ['-f', 'lavfi', '-i', 'sine=d=1', '-shortest', '-pix_fmt', 'yuv420p', '-movflags', '+faststart'],
    ],
    ['webm', 'a.webm', ['-c:v', 'libvpx-vp9', '-deadline', 'realtime', '-cpu-used', '8']],
    ['gif', 'a.gif', []],
  ] as const)('reads %s', async (_, name, options) => {
    const frames = await framesOf(await video(name, 'color=#204080:size=96x64:rate=16:duration=1', ...options));
    expect(frames).toHaveLength(17);
    // A GIF has 256 colours.
    expectNear([...(frames[9] ?? []).slice(0, 3)], [0x20, 0x40, 0x80], name === 'a.gif' ? 32 : 5);
  });

  it('ends ffmpeg and removes its file when the reader stops, and when the job ends', async () => {
    const bytes = await video('a.mp4', 'testsrc2=size=640x480:rate=16:duration=5', '-pix_fmt', 'yuv420p');
    for await (const frame of decodeControlVideo('ffmpeg', bytes, { ...fit, frames: 81 }, never)) {
      expect(frame).toHaveLength(64 * 32 * 3);
      break;
    }
    const abort = new AbortController();
    const stopped = checkControlVideo('ffmpeg', bytes, { ...fit, frames: 81 }, abort.signal);
    setTimeout(() => abort.abort(new Error('the job ended')), 20);
    await expect(stopped).rejects.toThrow('the job ended');
    expect(left()).toEqual([]);
  });
});

describe('a file that is no video', () => {
  const png = sharp({ create: { width: 8, height: 8, channels: 3, background: 'red' } })
    .png()
    .toBuffer();
  it.each([
    ['nothing', async () => new Uint8Array(), /^the control video is empty; send an MP4, a WebM or a GIF$/],
    ['an image', () => png, /^the control video is an image \(png\); send an MP4, a WebM or a GIF$/],
    [
      'a playlist',
      async () => Buffer.from('#EXTM3U\nfile:///etc/passwd\n'),
      /^the control video does not begin like any known video format; /,
    ],
    ['an AVIF', async () => Buffer.from('\0\0\0 ftypavif', 'latin1'), /^the control video is an AVIF; /],
    [
      'an MP4 of a header alone',
      async () => Buffer.from('\0\0\0 ftypisom', 'latin1'),
      /^the control video is damaged or cut short \(.*\); send the whole file$/,
    ],
    [
      'half an MP4',
      async () =>
        (
          await video(
            'a.mp4',
            'testsrc2=size=320x240:rate=16:duration=2',
            '-pix_fmt',
            'yuv420p',
            '-movflags',
            '+faststart',
          )
        ).subarray(0, 30_000),
      /^the control video is damaged or cut short \(.*\); send the whole file$/,
    ],
    [
      'damaged images beside sound',
      async () => {
        const sound = ['-f', 'lavfi', '-i', 'sine=d=2', '-pix_fmt', 'yuv420p'];
        const bytes = Buffer.from(await video('a.mp4', 'testsrc2=size=320x240:rate=16:duration=2', ...sound));
        bytes.fill(0xa5, bytes.indexOf('mdat') + 1000, bytes.indexOf('mdat') + 9000);
        return bytes;
      },
      /^the control video is damaged or cut short \(.*\); send the whole file$/,
    ],
    ['sound', () => video('a.mp4', 'sine=d=1'), /^the control video has no images; send one with a video track$/],
    [
      'a codec that is not on the list',
      () => video('a.mkv', 'testsrc2=size=64x64:rate=16:duration=1', '-c:v', 'huffyuv'),
      /^the control video has the codec huffyuv, which is not accepted; send H\.264, /,
    ],
    [
      'frames of more pixels than the limit',
      () => video('a.mkv', 'color=red:size=4096x2320:rate=16:duration=0.1', '-c:v', 'ffv1'),
      /^the control video is 4096x2320, and the limit is 9437184 pixels a frame; send a smaller one$/,
    ],
    [
      'frames that grow beyond it',
      async () => {
        const raw = (size: string) =>
          video('a.h264', `color=red:size=${size}:rate=16:duration=0.2`, '-preset', 'ultrafast', '-pix_fmt', 'yuv420p');
        const [path, both] = [join(await tempFolder(), 'a.mp4'), join(await tempFolder(), 'both.h264')];
        await writeFile(both, Buffer.concat([await raw('64x32'), await raw('4096x2320')]));
        await promisify(execFile)('ffmpeg', ['-v', 'error', '-r', '16', '-i', both, '-c', 'copy', path]);
        return readFile(path);
      },
      /^the control video is 4096x2320, and the limit is 9437184 pixels a frame; send a smaller one$/,
    ],
  ] as const)('is refused in one sentence: %s', async (_, bytes, message) => {
    const file = await bytes();
    const refusal = await refusalOf(checkControlVideo('ffmpeg', file, fit, never));
    expect(refusal).toMatch(message);
    // ffmpeg's threads decode side by side: which of their messages is the last one differs.
    const without = (text: string | undefined) => text?.replace(/\(.*\)/, '');
    expect(without(await refusalOf(framesOf(file)))).toBe(without(refusal));
    expect(left()).toEqual([]);
  });

  it('whose index is larger than memory may be is refused with little memory', async () => {
    const bytes = Buffer.from(await video('a.mp4', 'testsrc2=size=64x32:rate=16:duration=1', '-pix_fmt', 'yuv420p'));
    // 60 million samples of a byte in one chunk, each of a tick.
    const samples = 60_000_000;
    writeWords(bytes, 'stsz', [1, samples]);
    writeWords(bytes, 'stsc', [1, 1, samples, 1]);
    writeWords(bytes, 'stts', [1, samples, 1]);
    const usage = join(await tempFolder(), 'usage');
    const program = join(await tempFolder(), 'ffmpeg');
    // The largest size of its data at any time.
    const watch = `while sleep 0.05; do grep VmData /proc/$$/status >> ${usage} 2>/dev/null || exit; done`;
    await writeFile(program, `#!/bin/sh\n(${watch}) >/dev/null 2>&1 &\nexec ffmpeg "$@"\n`, { mode: 0o700 });
    expect(await refusalOf(checkControlVideo(program, bytes, fit, never))).toMatch(/^the control video /);
    const sizes = [...(await readFile(usage, 'utf8')).matchAll(/(\d+) kB/g)].map(([, kib]) => Number(kib));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1_048_576);
  });

  it('is refused if ffmpeg hangs, and what it started ends with it', async () => {
    const program = join(await tempFolder(), 'ffmpeg');
    const pid = join(await tempFolder(), 'pid');
    await writeFile(program, `#!/bin/sh\nsleep 600 &\necho $! > ${pid}\nwait\n`, { mode: 0o700 });
    const mp4 = Buffer.from('\0\0\0 ftypisom', 'latin1');
    expect(await refusalOf(checkControlVideo(program, mp4, fit, never, 500))).toBe(
      'the control video takes more than 0.5 s or too much memory to decode; send a shorter or a smaller one',
    );
    expect(left()).toEqual([]);
    const sleeper = Number(await readFile(pid, 'utf8'));
    await vi.waitFor(() => expect(() => process.kill(sleeper, 0)).toThrow('ESRCH'), 5000);
  });

  it('fails a job as without ffmpeg if ffmpeg went away', async () => {
    const mp4 = Buffer.from('\0\0\0 ftypisom', 'latin1');
    const gone = checkControlVideo('/nowhere/ffmpeg', mp4, fit, never);
    await expect(gone).rejects.toMatchObject({ reason: 'FFMPEG_MISSING' });
  });

  it.each(['exit 255', 'kill -KILL $$'])('is refused if ffmpeg is ended by a signal: %s', async (end) => {
    const program = join(await tempFolder(), 'ffmpeg');
    await writeFile(program, `#!/bin/sh\n${end}\n`, { mode: 0o700 });
    const mp4 = Buffer.from('\0\0\0 ftypisom', 'latin1');
    expect(await refusalOf(checkControlVideo(program, mp4, fit, never))).toBe(
      'the control video takes more than 60 s or too much memory to decode; send a shorter or a smaller one',
    );
  });

  it('that names another file is not followed', async () => {
    // A list of ffmpeg's own, and one behind the first bytes of an MP4.
    const secret = join(await tempFolder(), 'secret.mkv');
    await promisify(execFile)('ffmpeg', [
      '-v',
      'error',
      '-f',
      'lavfi',
      '-i',
      'color=red:size=64x32:rate=16:duration=1',
      ...lossless,
      secret,
    ]);
    for (const text of [
      `ffconcat version 1.0\nfile ${secret}\n`,
      `\0\0\0 ftyp\nffconcat version 1.0\nfile ${secret}\n`,
    ])
      expect(await refusalOf(checkControlVideo('ffmpeg', Buffer.from(text, 'latin1'), fit, never))).toMatch(
        /does not begin like|is damaged or cut short/,
      );
  });
});
