import { credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import {
  ServerReflectionClient,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '../../src/gen/grpc/reflection/v1/reflection.js';
import { createServer, type RunningServer } from '../../src/server/server.js';
import { silent } from '../support/serving.js';

let server: RunningServer;
beforeAll(async () => {
  const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0' });
  server = await createServer({ config, log: silent, engines: [] });
});
afterAll(() => server.close());

/** Sends requests over one stream, each after the answer to the one before; returns the answers once the stream has ended. */
function answers(
  requests: readonly ServerReflectionRequest['messageRequest'][],
): Promise<readonly ServerReflectionResponse['messageResponse'][]> {
  const client = new ServerReflectionClient(`127.0.0.1:${server.port}`, credentials.createInsecure());
  const call = client.serverReflectionInfo();
  const found: ServerReflectionResponse['messageResponse'][] = [];
  const sendNext = () => {
    const messageRequest = requests[found.length];
    if (messageRequest === undefined) call.end();
    else call.write({ host: '', messageRequest });
  };
  sendNext();
  return new Promise((resolve, reject) => {
    call.on('data', ({ messageResponse }: ServerReflectionResponse) => {
      found.push(messageResponse);
      sendNext();
    });
    call.on('error', reject);
    call.on('end', () => {
      client.close();
      resolve(found);
    });
  });
}

describe('reflection', () => {
  it('answers requests in order and ends with the client', { timeout: 5000 }, async () => {
    const [services, file, unknown] = await answers([
      { $case: 'listServices', value: '' },
      { $case: 'fileContainingSymbol', value: 'darkroom.v1.InferenceService' },
      { $case: 'fileByFilename', value: 'nowhere.proto' },
    ]);
    expect(services).toMatchObject({
      $case: 'listServicesResponse',
      value: { service: expect.arrayContaining([{ name: 'darkroom.v1.InferenceService' }]) },
    });
    expect(file?.$case).toBe('fileDescriptorResponse');
    expect(unknown).toMatchObject({ $case: 'errorResponse', value: { errorMessage: 'nowhere.proto is not known' } });
  });
});
