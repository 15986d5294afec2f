/** The engine process: loads one model, runs one job at a time, and ends when its parent does. */
import { InferenceError } from '../errors.js';
import { encodeImage } from '../media/encode-image.js';
import type { ImageRequest, Phase, Pipeline } from '../pipelines/pipeline.js';
import { createSdxlPipeline } from '../pipelines/sdxl/index.js';
import { toEngineError } from './engine-error.js';
import type { EngineSpec, EngineTimings, MessageFromEngine, MessageToEngine } from './messages.js';
import { endWithParent } from './parent-watch.js';
import { chooseDevice } from './probe.js';

endWithParent();

let pipeline: Pipeline | undefined;
let running: { readonly jobId: string; readonly abort: AbortController } | undefined;

process.on('message', (message: MessageToEngine) => {
  switch (message.kind) {
    case 'start':
      void load(message.spec);
      return;
    case 'run':
      void run(message.jobId, message.request);
      return;
    case 'cancel':
      if (running?.jobId === message.jobId) {
        running.abort.abort(new InferenceError('CANCELLED', 'the job was cancelled'));
      }
      return;
    case 'shutdown':
      process.exit(0);
  }
});

async function load(spec: EngineSpec): Promise<void> {
  const startedAt = performance.now();
  try {
    const { device, rejected } = await chooseDevice(spec.device);
    pipeline = await createSdxlPipeline({ path: spec.path, device, threads: spec.threads });
    send({ kind: 'ready', info: pipeline.info, device, rejected, loadMs: performance.now() - startedAt });
  } catch (error) {
    send({ kind: 'start-failed', error: toEngineError(error).toJSON() }, () => process.exit(1));
  }
}

async function run(jobId: string, request: ImageRequest): Promise<void> {
  if (pipeline === undefined || running !== undefined) {
    const error = new InferenceError('INTERNAL', `engine got job ${jobId} while ${running ? 'busy' : 'not loaded'}`);
    send({ kind: 'failed', jobId, error: error.toJSON() });
    return;
  }
  const abort = new AbortController();
  running = { jobId, abort };
  try {
    const timings = await runJob(pipeline, jobId, request, abort.signal);
    running = undefined;
    send({ kind: 'done', jobId, timings });
  } catch (error) {
    running = undefined;
    send({ kind: 'failed', jobId, error: toEngineError(error).toJSON() });
  }
}

async function runJob(
  model: Pipeline,
  jobId: string,
  request: ImageRequest,
  signal: AbortSignal,
): Promise<EngineTimings> {
  const spent: Record<Phase | 'media', number> = { encode: 0, denoise: 0, decode: 0, media: 0 };
  const startedAt = performance.now();
  let mark = startedAt;
  const lap = (phase: Phase | 'media') => {
    const now = performance.now();
    spent[phase] += now - mark;
    mark = now;
  };
  for await (const event of model.generate(request, signal)) {
    if (event.kind === 'progress') {
      lap(event.phase);
      send({ kind: 'event', jobId, event });
      continue;
    }
    const { index, seed, width, height, rgb } = event;
    lap('decode');
    const { bytes, contentType } = await encodeImage(rgb, { width, height }, { format: 'png' });
    lap('media');
    const asset = { kind: 'asset', index, seed, width, height, contentType, bytes } as const;
    send({ kind: 'event', jobId, event: asset });
  }
  return {
    encodeMs: spent.encode,
    denoiseMs: spent.denoise,
    decodeMs: spent.decode,
    mediaMs: spent.media,
    totalMs: performance.now() - startedAt,
  };
}

function send(message: MessageFromEngine, sent?: () => void): void {
  // A parent that is gone does not listen; this process ends with it.
  if (process.connected) process.send?.(message, undefined, undefined, () => sent?.());
}
