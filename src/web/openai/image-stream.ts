import type { PassThrough } from 'node:stream';
import { InferenceError } from '../../errors.js';
import { openSseStream } from '../sse-stream.js';
import type { ImagesRequest } from './images-request.js';
import { openaiError } from './openai-error.js';
import { type RunOptions, runImages } from './run-images.js';

/** Previews of which partial images are chosen. */
const PREVIEWS_PER_SECOND = 4;

/**
 * Streams one image as OpenAI does: partial images while it is made, then the whole one.
 * @param kind start of the events' names. https://platform.openai.com/docs/api-reference/images-streaming
 * @param close called when the reader goes away
 */
export function imageStream(
  kind: 'image_generation' | 'image_edit',
  request: ImagesRequest,
  options: RunOptions,
  close: () => void,
): PassThrough {
  const { stream } = openSseStream(close);
  const { size, output_format, partial_images: wanted } = request;
  const send = (event: string, data: object) => stream.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  const common = {
    created_at: Math.floor(Date.now() / 1000),
    size: size.width === 0 ? 'auto' : `${size.width}x${size.height}`,
    quality: 'auto',
    background: 'opaque',
  };
  let sent = 0;
  const run = async () => {
    const [image] = await runImages(request, {
      ...options,
      previewsPerSecond: wanted > 0 ? PREVIEWS_PER_SECOND : 0,
      onPreview({ image: jpeg }, fraction) {
        if (sent >= wanted || fraction < sent / (wanted + 1)) return;
        const type = `${kind}.partial_image`;
        const index = { partial_image_index: sent, b64_json: jpeg.toString('base64'), output_format: 'jpeg' };
        send(type, { type, ...common, ...index });
        sent += 1;
      },
    });
    const type = `${kind}.completed`;
    const b64_json = image?.data.toString('base64');
    const made = { size: `${image?.asset.width}x${image?.asset.height}`, seed: Number(image?.asset.seed) };
    send(type, { type, ...common, ...made, output_format, b64_json });
  };
  run()
    .catch((caught: unknown) => send('error', { type: 'error', ...openaiError(InferenceError.from(caught)) }))
    .finally(() => stream.end());
  return stream;
}
