import { createServer as createHttpServer } from 'node:http';
import { constants, createServer as createHttp2Server, type ServerHttp2Session } from 'node:http2';
import { type AddressInfo, createServer } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect, generate, UnreachableError } from '../../src/client/client.js';
import { InferenceServiceService } from '../../src/gen/darkroom/v1/inference_service.js';
import { freePort } from '../support/redis-server.js';

/** What a Generate fails with. */
async function failureOf(address: string, signal?: AbortSignal): Promise<unknown> {
  const client = connect(address);
  onTestFinished(() => client.close());
  try {
    for await (const _ of generate(client, { prompt: 'a red circle' }, signal));
  } catch (error) {
    return error;
  }
  throw new Error('the call did not fail');
}

/** A server that gets the call and answers nothing. @param onCall called when the call is there */
async function silentServer(onCall: (server: Server) => void): Promise<string> {
  const server = new Server();
  server.addService(InferenceServiceService, { generate: () => onCall(server) });
  return listening(server);
}

/** The address of a server that is shut down when the test ends. */
async function listening(server: Server): Promise<string> {
  onTestFinished(() => server.forceShutdown());
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  return `127.0.0.1:${port}`;
}

describe('Generate on a server that does not answer', () => {
  it.each([
    ['nothing listens', async () => `127.0.0.1:${await freePort()}`],
    // gRPC words this failure otherwise than a refused connection.
    ['the name does not resolve', async () => 'no-such-host.invalid:50051'],
    [
      'something else listens',
      async () => {
        const server = createServer((socket) => socket.destroy());
        onTestFinished(() => void server.close());
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
        const address = server.address();
        return `127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
      },
    ],
  ])('was not sent where %s', async (_, addressOf) => {
    const address = await addressOf();
    const error = await failureOf(address);
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error).toMatchObject({ reason: 'UNREACHABLE', wasSent: false });
    expect(String(error)).toContain(`no server answers at ${address}: `);
  });

  it.each([
    ['it refuses every call', () => undefined],
    ['it refuses the call and goes away', (session: ServerHttp2Session) => session.goaway()],
  ])('was not sent on the connection of a server that closes: %s', async (_, end) => {
    const server = createHttp2Server();
    onTestFinished(() => void server.close());
    server.on('stream', (stream) => {
      server.close();
      if (stream.session !== undefined) end(stream.session as ServerHttp2Session);
      stream.on('error', () => undefined).close(constants.NGHTTP2_REFUSED_STREAM);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    expect(await failureOf(`127.0.0.1:${port}`)).toMatchObject({ reason: 'UNREACHABLE', wasSent: false });
  });

  it('was not sent where another service has taken the port', async () => {
    const error = await failureOf(await listening(new Server()));
    expect(error).toMatchObject({ reason: 'UNREACHABLE', wasSent: false, retryable: true });
    expect(String(error)).toContain('something else listens there');
  });

  it('says that something else listens where it speaks HTTP/1, as the port of the metrics does', async () => {
    const server = createHttpServer();
    onTestFinished(() => void server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    expect(String(await failureOf(`127.0.0.1:${port}`))).toMatch(/something else listens there.*DARKROOM_SERVER/);
  });

  it('was sent where the server is killed with the call in its hands', async () => {
    const address = await silentServer((server) => server.forceShutdown());
    expect(await failureOf(address)).toMatchObject({ reason: 'UNREACHABLE', wasSent: true });
  });

  it('is cancelled, however far it came', async () => {
    expect(await failureOf(`127.0.0.1:${await freePort()}`, AbortSignal.abort())).toMatchObject({
      reason: 'CANCELLED',
    });
    const abort = new AbortController();
    const address = await silentServer(() => abort.abort());
    expect(await failureOf(address, abort.signal)).toMatchObject({ reason: 'CANCELLED' });
  });
});
