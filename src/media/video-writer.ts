import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { InferenceError } from '../errors.js';
import { removeStaleFolders } from '../std/stale-folders.js';

const videoFormats = ['mp4', 'webp'] as const;
export type VideoFormat = (typeof videoFormats)[number];

/** Default on x264's CRF scale: 0 is lossless, 51 the worst, 23 x264's own default. About 18 is visually lossless. */
const DEFAULT_CRF = 18;

export interface VideoOptions {
  /** In pixels; even for MP4. */
  readonly width: number;
  readonly height: number;
  /** Frames a second. */
  readonly fps: number;
  readonly format: VideoFormat;
  /** CRF of MP4, 0 to 51. Omitted: 18. */
  readonly crf?: number | undefined;
  /** Quality of WebP, 1 to 100. Omitted: 80. */
  readonly quality?: number | undefined;
  /** Metadata of the file. */
  readonly metadata?: VideoMetadata | undefined;
}

export interface VideoMetadata {
  /** Parameters, as text. */
  readonly comment?: string | undefined;
  /** True: the file is marked as made by a trained model. */
  readonly isProvenanceMarked: boolean;
}

export interface EncodedVideo {
  readonly bytes: Uint8Array;
  readonly contentType: string;
}

/** The value of IPTC's digital source type. http://cv.iptc.org/newscodes/digitalsourcetype/ */
const TRAINED_MODEL = 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia';
/** Folders of videos that are being written or read have this prefix, the id of the process, and a unique part. */
const FOLDER_PREFIX = 'darkroom-video-';
/** Length of ffmpeg's messages that are kept. The last one names the error. */
const MAX_STDERR_CHARACTERS = 2000;
const DEFAULT_WEBP_QUALITY = 80;

/**
 * Writes one video with ffmpeg, which takes the frames as they are decoded. The file is made in a folder of its own, because its
 * index is moved to the front at the end (faststart). The folder is removed when the video is finished or aborted.
 */
export class VideoWriter {
  readonly #options: VideoOptions;
  readonly #folder: string;
  readonly #process: ChildProcess;
  readonly #input: Writable;
  readonly #ended: Promise<number | null>;
  #stderr = '';
  #isBroken = false;

  private constructor(ffmpeg: string, folder: string, options: VideoOptions) {
    this.#options = options;
    this.#folder = folder;
    // stdin takes the frames, stderr has the errors.
    const child = spawn(ffmpeg, ffmpegArguments(options, join(folder, fileName(options))), {
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    this.#process = child;
    this.#input = child.stdin;
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_STDERR_CHARACTERS);
    });
    // If the pipe breaks, ffmpeg's exit has the reason.
    child.stdin.on('error', () => {
      this.#isBroken = true;
    });
    this.#ended = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#stderr = error.message;
        resolve(null);
      });
      child.on('close', (code) => resolve(code));
    });
  }

  /** @param ffmpeg path that findFfmpeg found */
  static async start(ffmpeg: string, options: VideoOptions): Promise<VideoWriter> {
    return new VideoWriter(ffmpeg, await createVideoFolder(), options);
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Writes a frame, and waits while ffmpeg is busy. @param rgb row-major uint8 [height, width, 3] */
  async write(rgb: Uint8Array): Promise<void> {
    if (this.#hasEnded) throw await this.#failure();
    if (this.#input.write(rgb)) return;
    await Promise.race([once(this.#input, 'drain').catch(() => undefined), this.#ended]);
    if (this.#hasEnded) throw await this.#failure();
  }

  /** Ends the video. @returns the whole file @throws InferenceError ENCODING_FAILED with ffmpeg's message */
  async finish(): Promise<EncodedVideo> {
    this.#input.end();
    const code = await this.#ended;
    if (code !== 0) throw await this.#failure();
    const bytes = await readFile(join(this.#folder, fileName(this.#options)));
    await this.#clean();
    return { bytes, contentType: this.#options.format === 'mp4' ? 'video/mp4' : 'image/webp' };
  }

  /** Kills ffmpeg and removes the file, in any state. */
  async abort(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#ended;
    await this.#clean();
  }

  get #hasEnded(): boolean {
    return this.#isBroken || this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  async #failure(): Promise<InferenceError> {
    const code = await this.#ended;
    await this.#clean();
    const how = this.#process.signalCode === null ? `exit code ${code}` : `signal ${this.#process.signalCode}`;
    const last = this.#stderr.trim().split('\n').at(-1) ?? '';
    if (/No space left on device/.test(this.#stderr)) {
      return new InferenceError('MACHINE_EXHAUSTED', `this machine has no free disk space: ${last}`, {
        retryAfterMs: 5000,
      });
    }
    return new InferenceError(
      'ENCODING_FAILED',
      `ffmpeg ended with ${how} while it wrote the video: ${last || 'no message'}`,
    );
  }

  #clean(): Promise<void> {
    return rm(this.#folder, { recursive: true, force: true });
  }
}

/** A folder that only this user can read. `removeStaleVideos` removes those that their process left. */
export function createVideoFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), `${FOLDER_PREFIX}${process.pid}-`));
}

/** Removes the folders of killed processes. Their ffmpeg ended with them. */
export function removeStaleVideos(): Promise<void> {
  return removeStaleFolders(tmpdir(), FOLDER_PREFIX);
}

function fileName({ format }: VideoOptions): string {
  return `video.${format}`;
}

function ffmpegArguments(
  { width, height, fps, format, crf, quality, metadata }: VideoOptions,
  path: string,
): readonly string[] {
  const input = [
    '-f',
    'rawvideo',
    '-pixel_format',
    'rgb24',
    '-video_size',
    `${width}x${height}`,
    '-framerate',
    String(fps),
    '-i',
    'pipe:0',
  ];
  const common = ['-hide_banner', '-loglevel', 'error', '-nostdin', '-y'];
  const tags = [
    ...(metadata?.comment === undefined ? [] : ['-metadata', `comment=${metadata.comment}`]),
    ...(metadata?.isProvenanceMarked ? ['-metadata', `description=DigitalSourceType: ${TRAINED_MODEL}`] : []),
  ];
  if (format === 'webp') {
    return [
      ...common,
      ...input,
      '-c:v',
      'libwebp_anim',
      '-loop',
      '0',
      '-quality',
      String(quality ?? DEFAULT_WEBP_QUALITY),
      path,
    ];
  }
  const colours = [
    '-vf',
    'scale=out_color_matrix=bt709:out_range=tv',
    '-colorspace',
    'bt709',
    '-color_primaries',
    'bt709',
    '-color_trc',
    'bt709',
  ];
  const codec = ['-c:v', 'libx264', '-preset', 'medium', '-crf', String(crf ?? DEFAULT_CRF), '-pix_fmt', 'yuv420p'];
  return [...common, ...input, ...colours, ...codec, ...tags, '-movflags', '+faststart', path];
}
