import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type PeerCertificate } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConnectOptions, connect, serverStatus } from '../../../src/client/client.js';
import { readConfig } from '../../../src/config/server-config.js';
import { InferenceError } from '../../../src/errors.js';
import { createServer } from '../../../src/server/server.js';
import { kinds, outcomeOf, quick, type Serving, serve, silent, until } from '../../support/serving.js';

const pem = (name: string) => fileURLToPath(new URL(`../../fixtures/tls/access/${name}.pem`, import.meta.url));
const otherAuthority = fileURLToPath(new URL('../../fixtures/tls/certificate.pem', import.meta.url));
const authorities = pem('authority');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Why a client with these options gets no answer; undefined where it gets one. */
async function problemOf(address: string, options: ConnectOptions): Promise<InferenceError | undefined> {
  const client = connect(address, options);
  try {
    await serverStatus(client, 5000);
    return undefined;
  } catch (error) {
    return InferenceError.from(error);
  } finally {
    client.close();
  }
}

async function guarded(variables: Record<string, string>, ownToken?: string) {
  const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0', ...variables });
  return createServer({ config, log: silent, engines: [], ownToken });
}

describe('TLS', () => {
  let serving: Serving;
  let address: string;
  const [certificate, key] = ['certificate.pem', 'key.pem'];
  const place = async (name: string) => {
    await copyFile(pem(name), join(folder, certificate));
    await copyFile(pem(`${name}-key`), join(folder, key));
  };

  beforeAll(async () => {
    await place('server');
    serving = await serve({ TLS_CERT: join(folder, certificate), TLS_KEY: join(folder, key) });
    address = `127.0.0.1:${serving.server.port}`;
  });
  afterAll(() => serving?.stop());

  it('works for a client that trusts the authority, and renders', async () => {
    const client = connect(address, { tls: { authorities } });
    const { error, files } = await outcomeOf(client, quick);
    client.close();
    expect(error).toBeUndefined();
    expect(files[0]?.length).toBeGreaterThan(100);
  });

  it('tells a client with another authority, or without TLS, what is wrong', async () => {
    const untrusting = await problemOf(address, { tls: { authorities: otherAuthority } });
    expect(untrusting).toMatchObject({ reason: 'UNREACHABLE', status: 'UNAVAILABLE' });
    expect(untrusting?.message).toMatch(/certificate/);
    const plain = await problemOf(address, {});
    expect(plain).toMatchObject({ reason: 'UNREACHABLE', status: 'UNAVAILABLE' });
    expect(plain?.message).toMatch(/if the server speaks TLS, set DARKROOM_CA/);
  });

  it('checks the name, which may be another one than that of the address', async () => {
    expect(await problemOf(address, { tls: { authorities, serverName: 'elsewhere.test' } })).toMatchObject({
      reason: 'UNREACHABLE',
    });
    expect(await problemOf(address, { tls: { authorities, serverName: 'localhost' } })).toBeUndefined();
  });

  it('does not start with a chain that TLS cannot use, and does not take one later', async () => {
    const broken = join(folder, 'broken.pem');
    const damage = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    await writeFile(broken, `${await readFile(pem('server'), 'utf8')}${damage}`);
    await expect(guarded({ TLS_CERT: broken, TLS_KEY: pem('server-key') })).rejects.toThrow(
      /^the files of TLS_CERT cannot be used for TLS: /,
    );
    await copyFile(broken, join(folder, certificate));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(await problemOf(address, { tls: { authorities } })).toBeUndefined();
    await place('server');
  });

  it('survives bytes that are no TLS', async () => {
    await new Promise<void>((resolve) => {
      const socket = createConnection(serving.server.port, '127.0.0.1', () => socket.end(Buffer.alloc(64 * 1024, 7)));
      socket.on('close', () => resolve());
      socket.on('error', () => resolve());
    });
    expect(await problemOf(address, { tls: { authorities } })).toBeUndefined();
  });

  const serial = () =>
    new Promise<string>((resolve, reject) => {
      const socket = connectTls(
        { host: '127.0.0.1', port: serving.server.port, rejectUnauthorized: false, ALPNProtocols: ['h2'] },
        () => {
          resolve((socket.getPeerCertificate() as PeerCertificate).serialNumber);
          socket.destroy();
        },
      );
      socket.on('error', reject);
    });

  it('takes a renewed certificate while 20 streams run, and none breaks', { timeout: 120_000 }, async () => {
    const client = connect(address, { tls: { authorities } });
    const before = await serial();
    let begun = 0;
    const streams = Array.from({ length: 20 }, (_, i) =>
      outcomeOf(
        client,
        { ...quick, steps: 10, width: 128, height: 128, guidanceScale: 2 + i / 10 },
        {
          onEvent: ({ sequence }) => {
            if (sequence === 1n) begun += 1;
          },
        },
      ),
    );
    await until(() => begun === 20);
    // The certificate first: until its key is there, too, the old pair stays in use.
    await copyFile(pem('renewed'), join(folder, certificate));
    await new Promise((resolve) => setTimeout(resolve, 1300));
    expect(await serial()).toBe(before);
    await copyFile(pem('renewed-key'), join(folder, key));
    await until(async () => (await serial()) !== before);
    const ends = await Promise.all(streams);
    client.close();
    expect(ends.map(({ events, error }) => error?.message ?? kinds(events).at(-1))).toEqual(
      ends.map(() => 'completed'),
    );
    expect(await problemOf(address, { tls: { authorities } })).toBeUndefined();
  });

  it('of a client follows its file, too', async () => {
    const file = join(folder, 'authority.pem');
    await copyFile(otherAuthority, file);
    const client = connect(address, { tls: { authorities: file } });
    const answers = () =>
      serverStatus(client, 5000).then(
        () => true,
        () => false,
      );
    expect(await answers()).toBe(false);
    await copyFile(authorities, file);
    await until(answers);
    client.close();
  });
});

describe('mutual TLS', () => {
  it('lets only clients with a certificate in', async () => {
    const server = await guarded({
      TLS_CERT: pem('server'),
      TLS_KEY: pem('server-key'),
      TLS_CLIENT_CA: authorities,
    });
    const address = `127.0.0.1:${server.port}`;
    const known = { authorities, certificate: pem('client'), key: pem('client-key') };
    expect(await problemOf(address, { tls: known })).toBeUndefined();
    const unknown = await problemOf(address, { tls: { authorities } });
    expect(unknown).toMatchObject({ reason: 'UNREACHABLE' });
    expect(unknown?.message).toMatch(/set DARKROOM_CERT/);
    await server.close();
  });

  it('leaves a client in the same process a way in, which nobody else has', async () => {
    const server = await guarded(
      {
        TLS_CERT: pem('server'),
        TLS_KEY: pem('server-key'),
        TLS_CLIENT_CA: authorities,
        AUTH_TOKEN: 'operators-token',
      },
      'own-token',
    );
    expect(server.localAddress).toMatch(/^unix:/);
    expect(await problemOf(server.localAddress, { token: 'own-token' })).toBeUndefined();
    expect(await problemOf(server.localAddress, {})).toMatchObject({ reason: 'UNAUTHENTICATED' });
    await server.close();
  });
});

describe('a server without TLS', () => {
  it('says so to a client that wants it', async () => {
    const server = await guarded({});
    const problem = await problemOf(`127.0.0.1:${server.port}`, { tls: { authorities } });
    await server.close();
    expect(problem?.message).toMatch(/the server does not speak TLS/);
    expect(problem?.message).toMatch(/: TLS: wrong version number; the server/);
  });
});

describe('a server that is open to other machines', () => {
  const start = async (variables: Record<string, string>) => {
    const server = await guarded({ DARKROOM_LISTEN: '0.0.0.0:0', ...variables });
    await server.close();
  };

  it('does not start without TLS and tokens, unless it is told to', async () => {
    await expect(start({})).rejects.toThrow(
      /^DARKROOM_LISTEN 0.0.0.0:0 takes calls from other machines, without TLS and without tokens; set TLS_CERT/,
    );
    await expect(start({ ALLOW_INSECURE: 'true' })).resolves.toBeUndefined();
    await expect(start({ AUTH_TOKEN: 'a-long-secret' })).resolves.toBeUndefined();
    await expect(start({ TLS_CERT: pem('server'), TLS_KEY: pem('server-key') })).resolves.toBeUndefined();
  });

  it.each([
    [{ TLS_CERT: pem('server') }, /TLS_CERT and TLS_KEY must be set together/],
    [{ TLS_CERT: pem('server'), TLS_KEY: pem('client-key') }, /TLS_KEY is not the key of the certificate in TLS_CERT/],
    [{ TLS_CERT: pem('missing'), TLS_KEY: pem('server-key') }, /TLS_CERT ".*missing.pem" cannot be read/],
    [{ TLS_CERT: pem('server-key'), TLS_KEY: pem('server-key') }, /TLS_CERT has no certificate/],
    [{ TLS_CLIENT_CA: authorities, AUTH_TOKEN: 'a-long-secret' }, /TLS_CLIENT_CA needs TLS/],
    [{ TOKENS_FILE: '/nowhere/tokens.json' }, /TOKENS_FILE \/nowhere\/tokens.json does not exist/],
    [{ AUDIT_FILE: '/nowhere/audit.jsonl', AUTH_TOKEN: 'a-long-secret' }, /AUDIT_FILE "\/nowhere\/audit.jsonl" cannot/],
  ])('says what is wrong with %o', async (variables, message) => {
    await expect(start(variables)).rejects.toThrow(message);
  });
});

describe('a client’s token file', () => {
  it('is read again when it changes', async () => {
    const file = join(folder, 'token');
    await writeFile(file, 'first-secret\n');
    const server = await guarded({ AUTH_TOKEN: 'second-secret' });
    const client = connect(`127.0.0.1:${server.port}`, { tokenFile: file });
    const answers = () =>
      serverStatus(client, 5000).then(
        () => true,
        () => false,
      );
    expect(await answers()).toBe(false);
    await writeFile(file, 'second-secret\n');
    await until(answers);
    client.close();
    await server.close();
    await expect(readFile(file, 'utf8')).resolves.toBe('second-secret\n');
  });
});
