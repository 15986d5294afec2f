/** Control videos: files of strangers, which ffmpeg decodes to frames of a job's size, number and rate. */
import { type ChildProcess, spawn } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { environment } from '../environment.js';
import { InferenceError } from '../errors.js';
import type { Size } from './encode-image.js';
import { signatureOf, type VideoContainer } from './image-signature.js';
import { createVideoFolder } from './video-writer.js';

/** Pixels of a frame of the file: 4K, and the larger 4K of cinemas. */
export const MAX_CONTROL_PIXELS = 4096 * 2304;

/** CPU time of ffmpeg. 300 frames of 4K take a few seconds. A file that takes this long was made for that. */
const MAX_DECODE_SECONDS = 60;

/** Time of the first decoding, whatever ffmpeg waits for. */
const MAX_CHECK_MS = 300_000;

/**
 * Memory that ffmpeg may have for data, in KiB: 12 frames of 4096x2304 with 16 reference frames, 10 bits, 4:4:4, took 500 MiB. A file of a few
 * kilobytes can name an index of gigabytes.
 */
const MAX_MEMORY_KIB = 1_048_576;

/** Runs a program under that limit, where the system has it. https://man7.org/linux/man-pages/man2/getrlimit.2.html */
const UNDER_LIMIT = `ulimit -d ${MAX_MEMORY_KIB} 2>/dev/null; exec "$0" "$@"`;

/** Exit codes of a shell that cannot run the program. */
const NOT_RUN: readonly (number | null)[] = [126, 127];

/** Each thread of a decoder holds a few frames. */
const THREADS = '2';

/** Demuxers by container. No other one is opened: playlists and the like name further files and addresses. */
const DEMUXERS: Readonly<Record<VideoContainer, string>> = { mp4: 'mov', webm: 'matroska', gif: 'gif' };

/** Decoders that hostile bytes reach, as ffmpeg calls them. */
const DECODERS = 'h264,hevc,vp8,vp9,av1,libdav1d,mpeg4,mjpeg,prores,ffv1,gif';

/** ffmpeg's exit code after a signal, which the limit of CPU time is. If it does not end by itself, the kernel kills it. */
const ENDED_BY_SIGNAL = 255;

const SEND_A_VIDEO = 'send an MP4, a WebM or a GIF';
const SEND_THE_WHOLE = 'send the whole file';

/** The video's name in its folder. ffmpeg runs there, so that its messages name no path. */
const FILE = 'video';

/** Length of ffmpeg's output that is kept. The last messages name the error, the last report has the frames. */
const MAX_KEPT_CHARACTERS = 8192;
const MAX_QUOTED_CHARACTERS = 200;

/** What a control video is fitted to: the frames of a job. */
export interface ControlVideoFit extends Size {
  readonly frames: number;
  /** Frames a second. */
  readonly fps: number;
}

/**
 * Decodes a control video without keeping its frames.
 *
 * @param ffmpeg path that findFfmpeg found
 * @param limitMs time that it may take. Omitted: 5 minutes
 * @returns number of the job's frames that it covers, at least 1
 * @throws InferenceError REFERENCE_INVALID, FFMPEG_MISSING; the signal's reason once it is aborted
 */
export async function checkControlVideo(
  ffmpeg: string,
  bytes: Uint8Array,
  fit: ControlVideoFit,
  signal: AbortSignal,
  limitMs = MAX_CHECK_MS,
): Promise<number> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(rejection(takesLong(limitMs / 1000))), limitMs);
  try {
    return await coveredFrames(ffmpeg, bytes, fit, AbortSignal.any([signal, late.signal]));
  } finally {
    clearTimeout(timer);
  }
}

async function coveredFrames(
  ffmpeg: string,
  bytes: Uint8Array,
  fit: ControlVideoFit,
  signal: AbortSignal,
): Promise<number> {
  const decoding = await Decoding.start(ffmpeg, bytes, fit, ['-progress', 'pipe:1', '-f', 'null', '-'], signal);
  try {
    let report = '';
    for await (const part of decoding.output) report = (report + String(part)).slice(-MAX_KEPT_CHARACTERS);
    await decoding.finish();
    const [frames = 0] = [...report.matchAll(/^frame=\s*(\d+)/gm)].map(([, count]) => Number(count)).slice(-1);
    return frames > 0 ? frames : rejectVideo(`has no frames; ${SEND_THE_WHOLE}`);
  } finally {
    await decoding.end();
  }
}

/**
 * Decodes a control video to the frames of a job: it is cropped evenly to the job's shape, scaled (Lanczos) to its size, and sampled at
 * its rate from the first frame on. What goes on after the job's last frame is left out. A shorter video stands still at its last frame.
 * ffmpeg waits for its reader: a few frames are in memory, whatever the length.
 *
 * @returns row-major uint8 [height, width, 3] each, `fit.frames` of them
 * @throws as `checkControlVideo`
 */
export async function* decodeControlVideo(
  ffmpeg: string,
  bytes: Uint8Array,
  fit: ControlVideoFit,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const decoding = await Decoding.start(ffmpeg, bytes, fit, ['-f', 'rawvideo', 'pipe:1'], signal);
  try {
    let last: Uint8Array | undefined;
    let count = 0;
    for await (const frame of framesOf(decoding.output, 3 * fit.width * fit.height)) {
      yield frame;
      [last, count] = [frame, count + 1];
    }
    await decoding.finish();
    if (last === undefined) return rejectVideo(`has no frames; ${SEND_THE_WHOLE}`);
    for (; count < fit.frames; count += 1) yield last;
  } finally {
    await decoding.end();
  }
}

/**
 * ffmpeg over one file in a folder of its own, which others cannot read. It is no pipe: an MP4's index may be at its end. It leads a group of
 * processes, which ends with it: the operator's ffmpeg may be a script.
 */
class Decoding {
  readonly output: Readable;
  readonly #folder: string;
  readonly #signal: AbortSignal;
  readonly #kill: () => void;
  readonly #ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  #problem: Error | undefined;
  #stderr = '';

  private constructor(ffmpeg: string, folder: string, options: readonly string[], signal: AbortSignal) {
    this.#folder = folder;
    this.#signal = signal;
    const { PATH, LD_LIBRARY_PATH } = environment();
    const child = spawn('/bin/sh', ['-c', UNDER_LIMIT, ffmpeg, ...options], {
      cwd: folder,
      // No secrets.
      env: { PATH, ...(LD_LIBRARY_PATH !== undefined && { LD_LIBRARY_PATH }) },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    this.output = child.stdout;
    this.#kill = () => killGroup(child);
    signal.addEventListener('abort', this.#kill, { once: true });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_KEPT_CHARACTERS);
    });
    this.#ended = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#problem = error;
        if (child.pid === undefined) resolve({ code: null, signal: null });
      });
      child.on('close', (code, by) => resolve({ code, signal: by }));
    });
  }

  static async start(
    ffmpeg: string,
    bytes: Uint8Array,
    fit: ControlVideoFit,
    target: readonly string[],
    signal: AbortSignal,
  ): Promise<Decoding> {
    signal.throwIfAborted();
    const options = decodeOptions(containerOf(bytes), fit);
    const folder = await createVideoFolder();
    try {
      await writeFile(join(folder, FILE), bytes, { mode: 0o600, signal });
      return new Decoding(ffmpeg, folder, [...options, ...target], signal);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Waits for the end of a run whose output was read. @throws InferenceError of what ffmpeg found wrong */
  async finish(): Promise<void> {
    const { code, signal } = await this.#ended;
    this.#signal.throwIfAborted();
    if (this.#problem !== undefined) throw this.#problem;
    if (NOT_RUN.includes(code))
      throw new InferenceError('FFMPEG_MISSING', `ffmpeg does not run: ${lastOf(this.#stderr)}`);
    const isLate = signal !== null || code === ENDED_BY_SIGNAL;
    if (code !== 0) throw rejectionOf(this.#stderr, isLate);
  }

  /** Kills ffmpeg and removes the file, in any state. */
  async end(): Promise<void> {
    this.#kill();
    this.#signal.removeEventListener('abort', this.#kill);
    await this.#ended;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
}

/** https://ffmpeg.org/ffmpeg-all.html */
function decodeOptions(container: VideoContainer, { width, height, frames, fps }: ControlVideoFit): readonly string[] {
  const shape = `(${width}/${height}/sar)`;
  const filters = [
    // A video that is shorter than a frame of the job has one frame.
    `fps=${fps}:eof_action=pass`,
    // Before it is scaled: whatever the file's shape, no image grows beyond the file's or the job's.
    `crop=w='max(1,min(iw,ih*${shape}))':h='max(1,min(ih,iw/${shape}))':exact=1`,
    `scale=${width}:${height}:flags=lanczos+accurate_rnd+full_chroma_int`,
    // Times from 0 on, whenever the video starts.
    `setpts=N/${fps}/TB`,
    'format=rgb24',
  ];
  return [
    ...['-hide_banner', '-nostdin', '-nostats', '-loglevel', 'error'],
    // Damage ends the run, and so does a file that takes too long.
    ...['-xerror', '-timelimit', String(MAX_DECODE_SECONDS)],
    ...['-protocol_whitelist', 'file', '-format_whitelist', DEMUXERS[container], '-codec_whitelist', DECODERS],
    ...['-err_detect', 'explode', '-max_pixels', String(MAX_CONTROL_PIXELS), '-threads', THREADS],
    ...['-f', DEMUXERS[container], '-i', `file:${FILE}`],
    ...['-map', '0:v:0', '-an', '-sn', '-dn', '-vf', filters.join(','), '-frames:v', String(frames)],
  ];
}

function containerOf(bytes: Uint8Array): VideoContainer {
  if (bytes.length === 0) return rejectVideo(`is empty; ${SEND_A_VIDEO}`);
  const signature = signatureOf(bytes);
  switch (signature.kind) {
    case 'video':
      return signature.container;
    case 'reference':
      return rejectVideo(`is an image (${signature.format}); ${SEND_A_VIDEO}`);
    case 'other':
      return rejectVideo(`is ${signature.name}; ${SEND_A_VIDEO}`);
    case 'unknown':
      return rejectVideo(`does not begin like any known video format; ${SEND_A_VIDEO}`);
  }
}

/** Raw frames of a stream, each a copy of its own. A part of a frame at the end is dropped: ffmpeg's exit code says why. */
async function* framesOf(stream: Readable, frameBytes: number): AsyncGenerator<Uint8Array, void, undefined> {
  let frame = new Uint8Array(frameBytes);
  let filled = 0;
  for await (const part of stream as AsyncIterable<Buffer>) {
    for (let from = 0; from < part.length; ) {
      const taken = part.subarray(from, from + frameBytes - filled);
      frame.set(taken, filled);
      from += taken.length;
      filled += taken.length;
      if (filled < frameBytes) continue;
      yield frame;
      frame = new Uint8Array(frameBytes);
      filled = 0;
    }
  }
}

/** What is wrong with the file, by ffmpeg's messages. */
function rejectionOf(stderr: string, isLate: boolean): InferenceError {
  if (isLate) return rejection(takesLong(MAX_DECODE_SECONDS));
  if (/matches no streams/.test(stderr)) return rejection('has no images; send one with a video track');
  // Tracks that are not read, such as sound, have codecs, too.
  const [, codec] = /opening decoder/.test(stderr)
    ? ([...stderr.matchAll(/Codec \((\w+)\) not on whitelist/g)].at(-1) ?? [])
    : [];
  if (codec !== undefined) {
    return rejection(`has the codec ${codec}, which is not accepted; send H.264, H.265, VP8, VP9, AV1 or a GIF`);
  }
  const [, size] = /Picture size (\d+x\d+) exceeds/.exec(stderr) ?? [];
  if (size !== undefined) {
    return rejection(`is ${size}, and the limit is ${MAX_CONTROL_PIXELS} pixels a frame; send a smaller one`);
  }
  if (/Cannot allocate memory|get_buffer\(\) failed/.test(stderr)) {
    return rejection('takes too much memory to decode; send a shorter or a smaller one');
  }
  return rejection(`is damaged or cut short (${lastOf(stderr) || 'no message'}); ${SEND_THE_WHOLE}`);
}

/** The last message of ffmpeg. */
function lastOf(stderr: string): string {
  const last = stderr.trim().split('\n').at(-1) ?? '';
  return last.replace(/^(\[[^\]]*\] )+/, '').slice(0, MAX_QUOTED_CHARACTERS);
}

function takesLong(seconds: number): string {
  return `takes more than ${seconds} s or too much memory to decode; send a shorter or a smaller one`;
}

function rejection(problem: string): InferenceError {
  return new InferenceError('REFERENCE_INVALID', `the control video ${problem}`);
}

function rejectVideo(problem: string): never {
  throw rejection(problem);
}
