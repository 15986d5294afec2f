import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { InferenceError } from '../errors.js';
import { removeStaleFolders } from '../std/stale-folders.js';

export const clipFormats = ['mp4', 'webp'] as const;
export type ClipFormat = (typeof clipFormats)[number];

/** x264's scale: 0 is lossless, 51 the worst, 23 its own default. Visually lossless is about 18. */
export const DEFAULT_CRF = 18;

export interface ClipOptions {
  /** In pixels; even for MP4. */
  readonly width: number;
  readonly height: number;
  /** Frames a second. */
  readonly fps: number;
  readonly format: ClipFormat;
  /** Of MP4, 0 to 51. Omitted: 18. */
  readonly crf?: number | undefined;
  /** Of WebP, 1 to 100. Omitted: 80. */
  readonly quality?: number | undefined;
  /** What the file says about itself. */
  readonly metadata?: ClipMetadata | undefined;
}

export interface ClipMetadata {
  /** Parameters, as text. */
  readonly comment?: string | undefined;
  /** Marks the clip as a trained model's work. */
  readonly isProvenanceMarked: boolean;
}

export interface EncodedClip {
  readonly bytes: Uint8Array;
  readonly contentType: string;
}

/** The value of IPTC's digital source type. http://cv.iptc.org/newscodes/digitalsourcetype/ */
const TRAINED_MODEL = 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia';
/** Folders of clips on their way: this, the process that writes, and something unique. */
const FOLDER = 'darkroom-clip-';
/** What is kept of ffmpeg's words; the last of them say what went wrong. */
const MAX_WORDS = 2000;
const DEFAULT_WEBP_QUALITY = 80;

/**
 * One clip on its way through ffmpeg: frames go in as they are decoded. The file is made in a folder of its own, because its
 * index is moved to the front at the end (faststart); the folder is gone when the clip is finished or aborted.
 */
export class ClipWriter {
  readonly #options: ClipOptions;
  readonly #folder: string;
  readonly #process: ChildProcess;
  readonly #input: Writable;
  readonly #ended: Promise<number | null>;
  #words = '';
  #isBroken = false;

  private constructor(ffmpeg: string, folder: string, options: ClipOptions) {
    this.#options = options;
    this.#folder = folder;
    // stdin carries the frames, stderr its complaints.
    const child = spawn(ffmpeg, ffmpegArguments(options, join(folder, fileName(options))), {
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    this.#process = child;
    this.#input = child.stdin;
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#words = (this.#words + text).slice(-MAX_WORDS);
    });
    // A pipe that breaks is told by the exit, with its reason.
    child.stdin.on('error', () => {
      this.#isBroken = true;
    });
    this.#ended = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#words = error.message;
        resolve(null);
      });
      child.on('close', (code) => resolve(code));
    });
  }

  /** @param ffmpeg that was found (ffmpeg.ts) */
  static async start(ffmpeg: string, options: ClipOptions): Promise<ClipWriter> {
    return new ClipWriter(ffmpeg, await mkdtemp(join(tmpdir(), `${FOLDER}${process.pid}-`)), options);
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** @param rgb row-major uint8 [height, width, 3]. Waits while ffmpeg has enough to do. */
  async write(rgb: Uint8Array): Promise<void> {
    if (this.#hasEnded) throw await this.#failure();
    if (this.#input.write(rgb)) return;
    await Promise.race([once(this.#input, 'drain').catch(() => undefined), this.#ended]);
    if (this.#hasEnded) throw await this.#failure();
  }

  /** The whole file. @throws InferenceError ENCODING_FAILED with what ffmpeg said */
  async finish(): Promise<EncodedClip> {
    this.#input.end();
    const code = await this.#ended;
    if (code !== 0) throw await this.#failure();
    const bytes = await readFile(join(this.#folder, fileName(this.#options)));
    await this.#clean();
    return { bytes, contentType: this.#options.format === 'mp4' ? 'video/mp4' : 'image/webp' };
  }

  /** Ends ffmpeg and takes the file away, whatever state it is in. */
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
    const last = this.#words.trim().split('\n').at(-1) ?? '';
    return new InferenceError(
      'ENCODING_FAILED',
      `ffmpeg ended with ${how} while it wrote the clip: ${last || 'it said nothing'}`,
    );
  }

  #clean(): Promise<void> {
    return rm(this.#folder, { recursive: true, force: true });
  }
}

/** Takes away what processes that were killed left: their ffmpeg ends with them, their folders stay. */
export function removeStaleClips(): Promise<void> {
  return removeStaleFolders(tmpdir(), FOLDER);
}

function fileName({ format }: ClipOptions): string {
  return `clip.${format}`;
}

function ffmpegArguments(
  { width, height, fps, format, crf, quality, metadata }: ClipOptions,
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
  const words = [
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
  return [...common, ...input, ...colours, ...codec, ...words, '-movflags', '+faststart', path];
}
