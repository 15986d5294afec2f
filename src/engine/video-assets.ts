import { encodeImage, withAnimationMetadata } from '../media/encode-image.js';
import { type ImageMetadata, parametersText } from '../media/image-metadata.js';
import { MAX_PREVIEW_SIDE, previewImage } from '../media/preview-image.js';
import { VideoWriter } from '../media/video-writer.js';
import type { FramesEvent } from '../pipelines/pipeline.js';
import type { EngineEvent, OutputOptions } from './messages.js';

type Asset = Extract<EngineEvent, { kind: 'asset' }>;

/** Writes one video to its files: the video, a poster of its first frame, and a thumbnail. */
export class VideoAssets {
  readonly #writer: VideoWriter;
  readonly #metadata: ImageMetadata;
  readonly #place: Pick<FramesEvent, 'seed' | 'width' | 'height'>;
  #first: Uint8Array | undefined;

  private constructor(
    writer: VideoWriter,
    metadata: ImageMetadata,
    place: Pick<FramesEvent, 'seed' | 'width' | 'height'>,
  ) {
    this.#writer = writer;
    this.#metadata = metadata;
    this.#place = place;
  }

  static async start(
    { video, quality }: { readonly video: NonNullable<OutputOptions['video']>; readonly quality: number | undefined },
    { seed, width, height }: FramesEvent,
    metadata: ImageMetadata,
  ): Promise<VideoAssets> {
    const { ffmpeg, format, fps, crf } = video;
    const comment = metadata.kind === 'full' ? parametersText(metadata.parameters) : undefined;
    const said = { comment, isProvenanceMarked: metadata.kind !== 'none' };
    const writer = await VideoWriter.start(ffmpeg, { width, height, fps, format, crf, quality, metadata: said });
    return new VideoAssets(writer, metadata, { seed, width, height });
  }

  async write(frames: readonly Uint8Array[]): Promise<void> {
    this.#first ??= frames[0];
    for (const frame of frames) await this.#writer.write(frame);
  }

  /** @param quality quality of the poster */
  async finish(quality: number | undefined): Promise<readonly Asset[]> {
    const { width, height } = this.#place;
    const rgb = this.#first ?? new Uint8Array();
    const metadata = this.#metadata;
    const { bytes, contentType } = await this.#writer.finish();
    // MP4 has its metadata from ffmpeg, which writes none into a WebP.
    const isWebp = contentType === 'image/webp';
    const clip = { contentType, bytes: isWebp ? withAnimationMetadata(Buffer.from(bytes), metadata) : bytes };
    const poster = await encodeImage(rgb, { width, height }, { format: 'jpeg', quality, metadata });
    const thumbnail = await previewImage(rgb, { width, height });
    const scale = Math.min(1, MAX_PREVIEW_SIDE / Math.max(width, height));
    const small = { width: Math.round(width * scale), height: Math.round(height * scale) };
    return [
      { kind: 'asset', role: 'result', index: 0, ...this.#place, ...clip },
      { kind: 'asset', role: 'poster', index: 1, ...this.#place, ...poster },
      {
        kind: 'asset',
        role: 'thumbnail',
        index: 2,
        ...this.#place,
        ...small,
        contentType: 'image/jpeg',
        bytes: thumbnail,
      },
    ];
  }

  abort(): Promise<void> {
    return this.#writer.abort();
  }
}
