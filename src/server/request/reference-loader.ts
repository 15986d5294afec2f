import type { Config } from '../../config/server-config.js';
import { FileError } from '../../errors.js';
import { checkControlVideo } from '../../media/control-video.js';
import { decodeControl } from '../../media/decode-control.js';
import { decodeMask } from '../../media/decode-mask.js';
import { decodeReference, decodeWholeReference } from '../../media/decode-reference.js';
import type { FramePlace, GenerationRequest, RequestControlVideo } from '../../pipelines/pipeline.js';
import { createReferenceFetcher, type ReferenceFetcher } from '../../references/reference-fetcher.js';
import { Semaphore } from '../../std/semaphore.js';
import { startsFromImage } from './applied-references.js';
import type { PlannedControlVideo } from './control-video.js';
import type { PlannedReferences, ReferenceSource } from './planned-references.js';

/** What messages call the references of a request. A single one is its start. */
const FILES: Readonly<Record<FramePlace, string>> = {
  start: 'the reference',
  end: 'the end reference',
  look: 'the look reference',
};

/** Number of references that are fetched at once, each within its own time limit: a slow host must not hold up the others. */
const FETCHES = 8;
/** What a host is asked for where a control video is wanted. */
const ACCEPTED_VIDEOS = 'video/mp4, video/webm, image/gif';
/** Number of references that are decoded at once. A large one takes up to 400 MB (docs/reference/references.md). */
const DECODES = 2;

export interface ReferenceLoader {
  /**
   * Fetches and decodes the images that a job starts from or holds, and fits them to its size.
   * @param caller `user`: users take turns
   * @returns the fields that they add to the request
   * @throws InferenceError REFERENCE_INVALID, REFERENCE_UNAVAILABLE, or the signal's reason
   */
  load(
    references: PlannedReferences,
    request: Pick<GenerationRequest, 'width' | 'height' | 'video'>,
    caller: { readonly user: string; readonly signal: AbortSignal },
  ): Promise<Pick<GenerationRequest, 'init' | 'imagePrompt' | 'video'>>;
  /** The same for the images of ControlNets. @returns them in their order */
  loadControls(
    sources: readonly ReferenceSource[],
    size: Pick<GenerationRequest, 'width' | 'height'>,
    caller: { readonly user: string; readonly signal: AbortSignal },
  ): Promise<readonly Uint8Array[]>;
  /**
   * Fetches a control video and decodes it once, so that its job fails here if it cannot be decoded.
   * @param ffmpeg path of the program
   */
  loadControlVideo(
    planned: PlannedControlVideo,
    request: Pick<GenerationRequest, 'width' | 'height' | 'video'>,
    ffmpeg: string,
    caller: { readonly user: string; readonly signal: AbortSignal },
  ): Promise<RequestControlVideo>;
}

/** @param fetcher default: the one that the configuration describes */
export function createReferenceLoader(config: Config, fetcher?: ReferenceFetcher): ReferenceLoader {
  const { fetch } =
    fetcher ??
    createReferenceFetcher({
      allowedHosts: config.REFERENCE_HOSTS ?? [],
      maxBytes: config.REFERENCE_MAX_BYTES,
      timeoutMs: config.REFERENCE_TIMEOUT_MS,
    });
  // One user leaves a permit to the others.
  const fetches = new Semaphore(FETCHES, FETCHES - 1);
  const decodes = new Semaphore(DECODES, DECODES - 1);
  const maxPixels = config.REFERENCE_MAX_PIXELS;
  const load = async <T>(
    file: string,
    source: ReferenceSource,
    decode: (bytes: Uint8Array) => Promise<T>,
    { user: key, signal }: { readonly user: string; readonly signal: AbortSignal },
    accept?: string,
  ) => {
    try {
      const bytes =
        source.kind === 'bytes'
          ? source.bytes
          : await fetches.run(() => fetch(source.url, signal, accept), { signal, key });
      const decoded = await decodes.run(() => decode(bytes), { signal, key });
      signal.throwIfAborted();
      return decoded;
    } catch (error) {
      throw error instanceof FileError ? error.of(file) : error;
    }
  };
  return {
    async load(references, { video, ...size }, caller) {
      const { strength, denoisingStrength, mask: planned } = references;
      const { method, places } = references.applied;
      if (method === 'ip_adapter') {
        if (references.start === undefined) return {};
        const whole = await load(
          FILES.start,
          references.start,
          (bytes) => decodeWholeReference(bytes, maxPixels),
          caller,
        );
        return { imagePrompt: { ...whole, scale: strength } };
      }
      const image = async (place: FramePlace) => {
        const source = places.includes(place) ? references[place] : undefined;
        const decode = async (bytes: Uint8Array) => (await decodeReference(bytes, { ...size, maxPixels })).rgb;
        return source && load(FILES[place], source, decode, caller);
      };
      const [start, end, look, mask] = await Promise.all([
        image('start'),
        image('end'),
        image('look'),
        planned &&
          load('the mask', planned.source, (bytes) => decodeMask(bytes, { ...size, maxPixels }, planned.blur), caller),
      ]);
      if (startsFromImage(method) || video === undefined) {
        return start === undefined
          ? {}
          : { init: { rgb: start, strength: denoisingStrength ?? strength, mask, cropPadding: planned?.cropPadding } };
      }
      return { video: { ...video, known: { method, start, end, look, strength } } };
    },
    loadControls(sources, { width, height }, caller) {
      const decode = (bytes: Uint8Array) => decodeControl(bytes, { width, height, maxPixels });
      return Promise.all(
        sources.map((source, i) =>
          load(sources.length === 1 ? 'the control image' : `control image ${i + 1}`, source, decode, caller),
        ),
      );
    },
    async loadControlVideo({ source, fps, scale }, { width, height, video }, ffmpeg, caller) {
      const fit = { width, height, frames: video?.frames ?? 1, fps };
      const check = async (file: Uint8Array) => ({
        file,
        frames: await checkControlVideo(ffmpeg, file, fit, caller.signal),
      });
      return { ffmpeg, fps, scale, ...(await load('the control video', source, check, caller, ACCEPTED_VIDEOS)) };
    },
  };
}
