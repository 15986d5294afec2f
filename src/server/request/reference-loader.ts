import type { Config } from '../../config/server-config.js';
import { decodeReference } from '../../media/decode-reference.js';
import type { Size } from '../../media/encode-image.js';
import type { FramePlace, GenerationRequest, ModelInfo } from '../../pipelines/pipeline.js';
import { createReferenceFetcher, type ReferenceFetcher } from '../../references/reference-fetcher.js';
import { Semaphore } from '../../std/semaphore.js';
import { applyReferences } from './applied-references.js';
import type { PlannedReferences, ReferenceSource } from './planned-references.js';

/**
 * Number of references that are fetched and decoded at once. A large image takes up to 400 MB while it is decoded
 * (docs/reference/references.md).
 */
const AT_ONCE = 2;

export interface ReferenceLoader {
  /**
   * Fetches and decodes the images that a job starts from or holds, and fits them to its size.
   * @returns the fields that they add to the request
   * @throws InferenceError REFERENCE_INVALID, REFERENCE_UNAVAILABLE, or the signal's reason
   */
  load(
    references: PlannedReferences,
    request: Pick<GenerationRequest, 'width' | 'height' | 'video'>,
    signal: AbortSignal,
  ): Promise<Pick<GenerationRequest, 'init' | 'video'>>;
}

/**
 * @param infoOf resolves with a model's info once it is known
 * @param fetcher default: the one that the configuration describes
 */
export function createReferenceLoader(
  config: Config,
  infoOf: (model: string, signal: AbortSignal) => Promise<ModelInfo | undefined>,
  fetcher?: ReferenceFetcher,
): ReferenceLoader {
  const { fetch } =
    fetcher ??
    createReferenceFetcher({
      allowedHosts: config.REFERENCE_HOSTS ?? [],
      maxBytes: config.REFERENCE_MAX_BYTES,
      timeoutMs: config.REFERENCE_TIMEOUT_MS,
    });
  const semaphore = new Semaphore(AT_ONCE);
  const load = (source: ReferenceSource, { width, height }: Size, signal: AbortSignal) =>
    semaphore.run(async () => {
      signal.throwIfAborted();
      const bytes = source.kind === 'bytes' ? source.bytes : await fetch(source.url, signal);
      const { rgb } = await decodeReference(bytes, { width, height, maxPixels: config.REFERENCE_MAX_PIXELS });
      signal.throwIfAborted();
      return rgb;
    });
  return {
    async load(references, { video, ...size }, signal) {
      const { strength, denoisingStrength } = references;
      const { method, places } = applyReferences(references, await infoOf(references.model, signal));
      const picture = async (place: FramePlace) => {
        const source = places.includes(place) ? references[place] : undefined;
        return source && load(source, size, signal);
      };
      const [start, end] = await Promise.all([picture('start'), picture('end')]);
      if (method === 'img2img' || video === undefined) {
        return start === undefined ? {} : { init: { rgb: start, strength: denoisingStrength ?? strength } };
      }
      // VACE takes the reference of an image job as a look, not as a frame.
      const frames = method === 'vace' && !references.isVideo ? { look: start } : { start, end };
      return { video: { ...video, known: { method, ...frames, strength } } };
    },
  };
}
