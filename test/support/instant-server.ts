import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import type { InferenceError } from '../../src/errors.js';
import type { JobEvent } from '../../src/gen/darkroom/v1/event.js';
import {
  type GenerateRequest,
  type GenerateResponse,
  InferenceServiceService,
} from '../../src/gen/darkroom/v1/inference_service.js';
import { AssetRole, JobMetadata } from '../../src/gen/darkroom/v1/job.js';
import { GetServerStatusResponse, ModelServiceService, ModelState } from '../../src/gen/darkroom/v1/model_service.js';
import { statusFromError } from '../../src/rpc/status.js';
import { silent } from './serving.js';

export interface InstantServer {
  readonly address: string;
  /** Resolves when the first job has come. */
  readonly called: Promise<void>;
  close(): void;
}

/**
 * A server that speaks the API and completes every job at once: what remains is the bridge's own time.
 * @param workMs time per image, one after the other, as on a GPU. Omitted: 0
 * @param failure ends each job behind so many of its events: queued, started, the file. Omitted: all complete
 */
export async function startInstantServer(
  picture: Buffer,
  workMs = 0,
  failure?: { readonly events: number; readonly error: InferenceError },
): Promise<InstantServer> {
  const server = new Server();
  let work = Promise.resolve();
  let onCall = () => {};
  const called = new Promise<void>((resolve) => {
    onCall = resolve;
  });
  const sha256 = createHash('sha256').update(picture).digest();
  server.addService(InferenceServiceService, {
    async generate(call: ServerWritableStream<GenerateRequest, GenerateResponse>) {
      onCall();
      if (workMs > 0) {
        work = work.then(() => sleep(workMs));
        await work;
      }
      const { jobId, seed = 1n, prompt, jobType } = call.request;
      const metadata = JobMetadata.fromPartial({
        seed,
        seeds: [seed],
        jobType,
        numImages: 1,
        width: 64,
        height: 64,
        steps: 1,
        originalPrompt: prompt,
      });
      const asset = {
        index: 0,
        contentType: 'image/png',
        sizeBytes: BigInt(picture.length),
        sha256,
        width: 64,
        height: 64,
        seed,
        role: AssetRole.ASSET_ROLE_RESULT,
      };
      const events: readonly JobEvent['event'][] = [
        { $case: 'queued', value: { position: 0, etaSeconds: undefined } },
        { $case: 'started', value: { metadata } },
        { $case: 'assetChunk', value: { index: 0, offset: 0n, data: picture, asset } },
        { $case: 'completed', value: { metadata, assets: [asset] } },
      ];
      for (const [i, event] of events.slice(0, failure?.events).entries()) {
        call.write({ event: { jobId, sequence: BigInt(i + 1), time: new Date(), event } });
      }
      if (failure === undefined) call.end();
      else call.emit('error', statusFromError(failure.error, silent));
    },
  });
  server.addService(ModelServiceService, {
    getServerStatus(_: unknown, respond: (error: null, response: GetServerStatusResponse) => void) {
      const models = ['sdxl', 'wan'].map((family) => ({ name: family, family, state: ModelState.MODEL_STATE_READY }));
      respond(null, GetServerStatusResponse.fromPartial({ models }));
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  return { address: `127.0.0.1:${port}`, called, close: () => server.forceShutdown() };
}
