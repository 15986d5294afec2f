import { askForToken, token } from './session';

/** A job type of the contract, as the gateway lists it. */
export interface JobType {
  readonly name: string;
  readonly family: string;
  readonly makes: 'images' | 'image' | 'video';
  readonly steps: number;
  readonly guidanceScale: number;
  readonly isEnhanced: boolean;
}

export interface About {
  readonly version: string;
  readonly hasQueue: boolean;
  readonly jobTypes: readonly JobType[];
}

// The proto's JSON: fields with their default value are left out, and 64-bit numbers are text.

export interface LoraInfo {
  readonly name: string;
  readonly base?: string;
  readonly rank?: number;
  readonly trainedTags?: readonly string[];
  readonly problem?: string;
}

export interface UpscalerInfo {
  readonly name: string;
  readonly problem?: string;
}

export interface SamplingPreset {
  readonly name: string;
  readonly steps: number;
  readonly guidanceScale?: number;
  readonly isDefault?: boolean;
}

export interface Engine {
  readonly name: string;
  readonly device?: string;
  readonly state?: string;
  readonly residentBytes?: string;
  readonly deviceBytes?: string;
  readonly runningJobs?: number;
  readonly restarts?: number;
  readonly variants?: number;
  readonly problem?: string;
}

export interface Model {
  readonly name: string;
  readonly family: string;
  readonly state?: string;
  readonly device?: string;
  readonly parameters?: string;
  readonly storage?: string;
  readonly schedulers?: readonly string[];
  readonly sizeMultiple?: number;
  readonly nativeWidth?: number;
  readonly nativeFrames?: number;
  readonly nativeHeight?: number;
  readonly residentBytes?: string;
  readonly weightBytes?: string;
  readonly restarts?: number;
  readonly problem?: string;
  readonly loras?: readonly LoraInfo[];
  readonly upscalers?: readonly UpscalerInfo[];
  readonly samplingPresets?: readonly SamplingPreset[];
  /** For example REFERENCE_ROLE_START. */
  readonly referenceRoles?: readonly string[];
  /** Optional fields of a request that have an effect. */
  readonly takes?: readonly string[];
  readonly engines?: readonly Engine[];
}

export interface ServerStatus {
  readonly version?: string;
  readonly uptimeSeconds?: number;
  readonly draining?: boolean;
  readonly runningJobs?: number;
  readonly queuedJobs?: number;
  readonly queueLimit?: number;
  readonly residentBytes?: string;
  readonly models?: readonly Model[];
}

export interface Asset {
  readonly index?: number;
  readonly contentType: string;
  readonly sizeBytes?: string;
  readonly width?: number;
  readonly height?: number;
  readonly seed?: string;
  readonly role?: string;
}

export interface Lora {
  readonly name: string;
  readonly weight?: number;
}

export interface Metadata {
  readonly seed?: string;
  readonly seeds?: readonly string[];
  readonly jobType?: string;
  readonly model?: string;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly guidanceScale?: number;
  readonly scheduler?: string;
  readonly samplingPreset?: string;
  readonly numImages?: number;
  readonly originalPrompt?: string;
  readonly negativePrompt?: string;
  readonly enhancedPrompt?: string;
  readonly device?: string;
  readonly queueSeconds?: number;
  readonly generationSeconds?: number;
  readonly frames?: number;
  readonly fps?: number;
  readonly referenceMethod?: string;
  readonly referenceProblem?: string;
  readonly promptProblem?: string;
  readonly promptTokens?: number;
  readonly droppedTokens?: number;
  readonly engine?: string;
  readonly memoryMeasures?: readonly string[];
  readonly loras?: readonly Lora[];
  readonly totalSizeBytes?: string;
  readonly upscale?: { readonly factor?: number; readonly upscaler?: string; readonly strength?: number };
}

export interface JobError {
  readonly reason?: string;
  readonly message?: string;
  readonly retryable?: boolean;
}

export interface Job {
  readonly jobId: string;
  readonly state?: string;
  readonly jobType?: string;
  readonly model?: string;
  readonly createTime?: string;
  readonly endTime?: string;
  readonly fraction?: number;
  readonly queuePosition?: number;
  readonly assets?: readonly Asset[];
  readonly metadata?: Metadata;
  readonly error?: JobError;
  readonly owner?: string;
}

export interface JobEvent {
  readonly jobId: string;
  readonly sequence: string;
  readonly queued?: { readonly position?: number; readonly etaSeconds?: number };
  readonly modelLoading?: { readonly model?: string; readonly fraction?: number; readonly loras?: readonly Lora[] };
  readonly started?: { readonly metadata?: Metadata };
  readonly progress?: {
    readonly phase?: string;
    readonly step?: number;
    readonly total?: number;
    readonly fraction?: number;
    readonly etaSeconds?: number;
  };
  readonly preview?: { readonly index?: number; readonly contentType: string; readonly image: string };
  readonly assetChunk?: { readonly asset?: Asset };
  readonly textDelta?: { readonly text?: string };
  readonly completed?: { readonly metadata?: Metadata; readonly assets?: readonly Asset[] };
  readonly failed?: { readonly error?: JobError };
}

export interface Estimate {
  readonly seconds?: number;
  readonly queueSeconds?: number;
  readonly width?: number;
  readonly height?: number;
  readonly frames?: number;
  readonly denoisingSteps?: number;
  readonly peakMemoryBytes?: string;
  readonly devicePeakBytes?: string;
}

export interface Tokens {
  readonly encoders?: readonly {
    readonly encoder: string;
    readonly tokens?: number;
    readonly chunks?: number;
    readonly dropped?: number;
  }[];
  readonly phrases?: readonly { readonly text?: string; readonly weight?: number; readonly tokens?: number }[];
  readonly problem?: string;
}

export type { QueuedJob, QueueOverview } from '../../../src/web/queue-operations';

/** An error in words that a person can act on. */
export class ApiError extends Error {
  readonly reason: string;
  readonly violations: readonly { readonly field: string; readonly description: string }[];

  constructor(reason: string, message: string, violations: ApiError['violations'] = []) {
    super(message);
    this.reason = reason;
    this.violations = violations;
  }

  static from(caught: unknown): ApiError {
    if (caught instanceof ApiError) return caught;
    return new ApiError('UNREACHABLE', 'The program that serves this page does not answer. Is "darkroom web" running?');
  }
}

/** True for errors that pass by themselves when the server is back. */
export function isOffline({ reason }: ApiError): boolean {
  return ['UNREACHABLE', 'DRAINING', 'ENGINE_STARTING', 'DEADLINE_EXCEEDED'].includes(reason);
}

/**
 * Calls the gateway. A call that is refused for its token asks for one and is repeated with it.
 * @throws ApiError
 */
export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const used = token.value;
    const headers = new Headers(init.headers);
    if (used !== '') headers.set('authorization', `Bearer ${used}`);
    let response: Response;
    try {
      response = await fetch(path, { ...init, headers });
    } catch (caught) {
      if (init.signal?.aborted) throw caught;
      throw ApiError.from(caught);
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (error.reason !== 'UNAUTHENTICATED') throw error;
    if (token.value === used) await askForToken(used === '' ? undefined : error.message);
  }
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as { error: { reason: string; message: string; violations?: [] } };
    return new ApiError(error.reason, error.message, error.violations);
  } catch {
    return new ApiError('INTERNAL', `The answer cannot be read (HTTP ${response.status}).`);
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await call(path, signal === undefined ? {} : { signal })).json()) as T;
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal !== undefined && { signal }),
  };
  return (await (await call(path, init)).json()) as T;
}

export function fileUrl(jobId: string, index: number): string {
  return `api/jobs/${encodeURIComponent(jobId)}/files/${index}`;
}
