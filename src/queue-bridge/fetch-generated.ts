import { type DarkroomClient, generate } from '../client/client.js';
import { AssetSaver, type SavedAsset } from '../client/save-assets.js';
import { InferenceError } from '../errors.js';
import { type JobEvent, Phase } from '../gen/darkroom/v1/event.js';
import type { GenerateRequest } from '../gen/darkroom/v1/inference_service.js';
import type { JobMetadata } from '../gen/darkroom/v1/job.js';

export interface Generated {
  readonly metadata: JobMetadata;
  /** In the order of their index. */
  readonly files: readonly SavedAsset[];
}

export interface FetchOptions {
  /** Folder for the files. */
  readonly folder: string;
  readonly signal: AbortSignal;
  /** Span of the call. Undefined: none. */
  readonly traceparent: string | undefined;
  /** Called for every event. */
  readonly onEvent: (event: JobEvent) => void;
}

/** Runs a job on a server, or attaches to it there, and writes its files to a folder. @throws InferenceError */
export async function fetchGenerated(
  client: DarkroomClient,
  request: GenerateRequest,
  { folder, signal, traceparent, onEvent }: FetchOptions,
): Promise<Generated> {
  const saver = new AssetSaver(folder, 'asset');
  const files: SavedAsset[] = [];
  try {
    for await (const event of generate(client, request, signal, traceparent)) {
      onEvent(event);
      if (event.event?.$case === 'assetChunk') {
        const saved = await saver.add(event.event.value);
        if (saved !== undefined) files.push(saved);
      } else if (event.event?.$case === 'completed' && event.event.value.metadata !== undefined) {
        return { metadata: event.event.value.metadata, files };
      }
    }
  } finally {
    await saver.close();
  }
  throw new InferenceError('UNREACHABLE', 'the server ended the stream before the job ended');
}

const PHASES: Readonly<Record<number, string>> = {
  [Phase.PHASE_ENHANCE]: 'enhance',
  [Phase.PHASE_ENCODE]: 'encode',
  [Phase.PHASE_DENOISE]: 'denoise',
  [Phase.PHASE_DECODE]: 'decode',
};

/** The progress that an event reports to frontends; undefined if it does not change. */
export function progressFrom({ event }: JobEvent): Readonly<Record<string, unknown>> | undefined {
  const base = { status: 'processing', updated_at: new Date().toISOString() };
  switch (event?.$case) {
    case 'queued':
      return {
        ...base,
        phase: 'queued',
        fraction: 0,
        position: event.value.position,
        eta_seconds: event.value.etaSeconds,
      };
    case 'modelLoading':
      return { ...base, phase: 'loading', fraction: 0 };
    case 'started':
      return { ...base, phase: 'started', fraction: 0 };
    case 'progress': {
      const { phase, step, total, fraction, etaSeconds } = event.value;
      return { ...base, phase: PHASES[phase] ?? 'running', fraction, step, total, eta_seconds: etaSeconds };
    }
    default:
      return undefined;
  }
}
