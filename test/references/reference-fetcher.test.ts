import type { LookupAddress } from 'node:dns';
import type { IncomingMessage, RequestListener } from 'node:http';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { InferenceError } from '../../src/errors.js';
import { isPublicAddress } from '../../src/references/public-address.js';
import { createReferenceFetcher, type ReferenceFetcherOptions } from '../../src/references/reference-fetcher.js';
import { certificate, httpsServer } from '../support/https-server.js';
import { refusalOf, unavailabilityOf } from '../support/reference-errors.js';

const never = new AbortController().signal;
const limits = { maxBytes: 1_000_000, timeoutMs: 10_000 };
const loopback: readonly LookupAddress[] = [{ address: '127.0.0.1', family: 4 }];

/** A server behind https://references.test:PORT, and a fetcher that may reach it only. */
async function behind(listener: RequestListener, options: Partial<ReferenceFetcherOptions> = {}) {
  const server = await httpsServer(listener);
  const fetcher = createReferenceFetcher({
    ...limits,
    allowedHosts: [`references.test:${server.port}`, `*.references.test:${server.port}`],
    lookup: async () => loopback,
    ca: certificate,
    isAllowedAddress: (address) => address === '127.0.0.1' || isPublicAddress(address),
    ...options,
  });
  const url = (path: string, host = 'references.test') => `https://${host}:${server.port}${path}`;
  const fetch = (path: string, signal = never) => fetcher.fetch(url(path), signal);
  return { server, fetcher, url, fetch, port: server.port };
}

describe('a reference', () => {
  it('arrives byte for byte', async () => {
    const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 31) % 251));
    const { fetch } = await behind((_, response) => response.end(bytes));
    expect(Buffer.from(await fetch('/a.png')).equals(bytes)).toBe(true);
  });

  it('arrives over one redirect to another allowed host, without cookie, referrer or credentials in the request', async () => {
    const { server, fetch, port } = await behind(({ url }, response) => {
      if (url === '/sign?token=abc') {
        const location = `https://bucket.references.test:${port}/real.png?x=1#part`;
        response.writeHead(302, { location, 'set-cookie': 'session=1; Path=/' }).end();
      } else response.end('picture');
    });
    expect(Buffer.from(await fetch('/sign?token=abc')).toString()).toBe('picture');
    const [first, second] = server.requests;
    expect([first?.url, second?.url]).toEqual(['/sign?token=abc', '/real.png?x=1']);
    expect(first?.headers).toEqual({
      host: `references.test:${port}`,
      'user-agent': 'darkroom/0.1.0',
      accept: 'image/png, image/jpeg, image/webp',
      'accept-encoding': 'identity',
      connection: 'close',
    });
    expect(second?.headers).toEqual({ ...first?.headers, host: `bucket.references.test:${port}` });
  });

  it('arrives over a redirect to a path', async () => {
    const { fetch } = await behind(({ url }, response) =>
      url === '/b' ? response.end('picture') : response.writeHead(307, { location: 'b' }).end(),
    );
    expect(Buffer.from(await fetch('/a')).toString()).toBe('picture');
  });

  for (const [name, declare] of [
    ['declared', true],
    ['not declared', false],
  ] as const) {
    it(`arrives with maxBytes bytes, ${name}, and not with one more`, async () => {
      const { fetch } = await behind(
        ({ url }, response) => {
          const body = Buffer.alloc(url === '/fits' ? 100_000 : 100_001, 7);
          if (declare) response.setHeader('content-length', body.length);
          response.write(body.subarray(0, 10));
          response.end(body.subarray(10));
        },
        { maxBytes: 100_000 },
      );
      expect(Buffer.alloc(100_000, 7).equals(await fetch('/fits'))).toBe(true);
      expect(await refusalOf(fetch('/spills'))).toBe(
        declare
          ? 'the reference has 100001 bytes, and the limit is 100000; use a smaller file'
          : 'the reference has more than 100000 bytes, which is the limit; use a smaller file',
      );
    });
  }

  it('may be empty: the decoder rejects it', async () => {
    const { fetch } = await behind((_, response) => response.end());
    expect(await fetch('/')).toHaveLength(0);
  });
});

describe('a name', () => {
  const NOT_PUBLIC =
    'the host of the reference, "references.test", has an address that is not public; use another host';
  const resolvingTo = (...addresses: string[]) => ({
    lookup: async () => addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    isAllowedAddress: isPublicAddress,
  });

  for (const addresses of [
    ['127.0.0.1'],
    ['169.254.169.254'],
    ['::1'],
    ['::ffff:127.0.0.1'],
    ['8.8.8.8', '127.0.0.1'],
    ['127.0.0.1', '8.8.8.8'],
  ]) {
    it(`that leads to ${addresses.join(' and ')} is rejected before any connection`, async () => {
      const { server, fetch } = await behind((_, response) => response.end('inside'), resolvingTo(...addresses));
      expect(await refusalOf(fetch('/'))).toBe(NOT_PUBLIC);
      expect(server.connections()).toBe(0);
    });
  }

  it('is resolved once for a fetch, so that it cannot change after the check', async () => {
    const answers = ['127.0.0.1', '127.0.0.2'];
    const { server, fetch } = await behind((_, response) => response.end('picture'), {
      lookup: async () => [{ address: answers.shift() ?? 'asked too often', family: 4 }],
      isAllowedAddress: (address) => address === '127.0.0.1',
    });
    expect(Buffer.from(await fetch('/')).toString()).toBe('picture');
    expect([answers, server.connections()]).toEqual([['127.0.0.2'], 1]);
  });

  it('is resolved and checked again for a redirect', async () => {
    const answers = ['127.0.0.1', '10.0.0.1'];
    const { server, fetch } = await behind((_, response) => response.writeHead(302, { location: '/b' }).end(), {
      lookup: async () => [{ address: answers.shift() ?? 'asked too often', family: 4 }],
    });
    expect(await refusalOf(fetch('/a'))).toBe(NOT_PUBLIC);
    expect(server.requests).toHaveLength(1);
  });

  it('that does not exist is rejected', async () => {
    const unknown = Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' });
    for (const lookup of [() => Promise.reject(unknown), async () => []]) {
      const { fetch } = await behind((_, response) => response.end(), { lookup });
      expect(await refusalOf(fetch('/'))).toBe(
        'the host of the reference, "references.test", is not found; check its URL',
      );
    }
  });

  it('whose resolver fails may be retried', async () => {
    const busy = Object.assign(new Error('getaddrinfo EAI_AGAIN'), { code: 'EAI_AGAIN' });
    const { fetch } = await behind((_, response) => response.end(), { lookup: () => Promise.reject(busy) });
    expect(await unavailabilityOf(fetch('/'))).toBe(
      'the connection to "references.test" for the reference failed (EAI_AGAIN); try again later',
    );
  });

  it('that the certificate does not name is rejected', async () => {
    const server = await httpsServer((_, response) => response.end('another host'));
    const fetcher = createReferenceFetcher({
      ...limits,
      allowedHosts: [`another.test:${server.port}`],
      lookup: async () => loopback,
      ca: certificate,
      isAllowedAddress: () => true,
    });
    expect(await refusalOf(fetcher.fetch(`https://another.test:${server.port}/`, never))).toBe(
      `the connection to "another.test:${server.port}" for the reference is not secure or not HTTP (ERR_TLS_CERT_ALTNAME_INVALID); use another host`,
    );
    expect(server.requests).toHaveLength(0);
  });

  it('with a self-signed certificate is rejected', async () => {
    const server = await httpsServer((_, response) => response.end('anyone'));
    const fetcher = createReferenceFetcher({
      ...limits,
      allowedHosts: [`references.test:${server.port}`],
      lookup: async () => loopback,
      isAllowedAddress: () => true,
    });
    expect(await refusalOf(fetcher.fetch(`https://references.test:${server.port}/`, never))).toBe(
      `the connection to "references.test:${server.port}" for the reference is not secure or not HTTP (DEPTH_ZERO_SELF_SIGNED_CERT); use another host`,
    );
    expect(server.requests).toHaveLength(0);
  });
});

describe('a redirect', () => {
  const cases: readonly [string, string, string][] = [
    [
      'to a private address',
      'https://10.0.0.1/a.png',
      "the host of the reference's redirect, 10.0.0.1, is not a public address; use another host",
    ],
    [
      'to a metadata service',
      'https://169.254.169.254/latest/meta-data/',
      "the host of the reference's redirect, 169.254.169.254, is not a public address; use another host",
    ],
    [
      'to http',
      'http://references.test/a.png',
      `the URL of the reference's redirect begins with "http:", and only https is fetched; give an https URL`,
    ],
    [
      'to a host not allowed',
      '//evil.test/a.png',
      `the host of the reference's redirect, "evil.test", is not allowed; add it to REFERENCE_HOSTS or use another host`,
    ],
    [
      'with a password',
      'https://reader:secret@references.test/',
      "the URL of the reference's redirect contains a user name or a password; give one without",
    ],
    ['to no URL', 'https://', "the URL of the reference's redirect is not valid; give one that begins with https://"],
  ];
  for (const [name, location, sentence] of cases) {
    it(`${name} is refused`, async () => {
      const { server, fetch } = await behind((_, response) => response.writeHead(301, { location }).end());
      expect(await refusalOf(fetch('/'))).toBe(sentence);
      expect(server.requests).toHaveLength(1);
    });
  }

  it('without a target is rejected', async () => {
    const { fetch, port } = await behind((_, response) => response.writeHead(302).end());
    expect(await refusalOf(fetch('/'))).toBe(
      `"references.test:${port}" redirects the reference without a target; give the URL of the file itself`,
    );
  });

  it('that leads back to itself ends', async () => {
    const { server, fetch } = await behind((_, response) => response.writeHead(302, { location: '/' }).end());
    expect(await refusalOf(fetch('/'))).toBe('the reference redirects more than 3 times; give the URL that it ends at');
    expect(server.requests).toHaveLength(4);
  });

  it('is followed maxRedirects times and not once more', async () => {
    const countDown: RequestListener = ({ url = '' }, response) => {
      const left = Number(url.slice(1));
      left === 0 ? response.end('picture') : response.writeHead(302, { location: `/${left - 1}` }).end();
    };
    const { fetch } = await behind(countDown, { maxRedirects: 2 });
    expect(Buffer.from(await fetch('/2')).toString()).toBe('picture');
    expect(await refusalOf(fetch('/3'))).toBe(
      'the reference redirects more than 2 times; give the URL that it ends at',
    );
  });
});

describe('a response', () => {
  const FIFTY_MB = 50 * 1024 * 1024;

  it('of a declared 50 MB is rejected unread', async () => {
    const { server, fetch } = await behind((_, response) => {
      response.writeHead(200, { 'content-length': FIFTY_MB });
      response.write(Buffer.alloc(1000));
    });
    expect(await refusalOf(fetch('/'))).toBe(
      'the reference has 52428800 bytes, and the limit is 1000000; use a smaller file',
    );
    expect(server.requests).toHaveLength(1);
  });

  it('of 50 MB without a declared length is rejected when it passes the limit', async () => {
    let sent = 0;
    const { fetch } = await behind((_, response) => {
      const piece = Buffer.alloc(64 * 1024);
      const pump = () => {
        while (sent < FIFTY_MB && !response.destroyed) {
          sent += piece.length;
          if (!response.write(piece)) return void response.once('drain', pump);
        }
        response.end();
      };
      pump();
    });
    expect(await refusalOf(fetch('/'))).toBe(
      'the reference has more than 1000000 bytes, which is the limit; use a smaller file',
    );
    expect(sent).toBeLessThan(FIFTY_MB / 2);
  });

  it('that drips its body is late', { timeout: 10_000 }, async () => {
    const { fetch } = await behind(
      (_, response) => {
        const drip = setInterval(() => response.write('.'), 20);
        response.on('close', () => clearInterval(drip));
      },
      { timeoutMs: 300 },
    );
    expect(await unavailabilityOf(fetch('/'))).toBe(
      'the reference did not arrive within 300 ms; try again later or raise REFERENCE_TIMEOUT_MS',
    );
  });

  it('that never comes is late', async () => {
    const { fetch } = await behind(() => {}, { timeoutMs: 200 });
    expect(await unavailabilityOf(fetch('/'))).toContain('did not arrive within 200 ms');
  });

  it('that waits for a resolver is late', async () => {
    const { fetch } = await behind(() => {}, { timeoutMs: 200, lookup: () => new Promise(() => {}) });
    expect(await unavailabilityOf(fetch('/'))).toContain('did not arrive within 200 ms');
  });

  it('whose parts are in time but not their sum is late', async () => {
    const { fetch } = await behind(
      (_, response) => void setTimeout(() => response.writeHead(302, { location: '/' }).end(), 150),
      { timeoutMs: 400 },
    );
    expect(await unavailabilityOf(fetch('/'))).toContain('did not arrive within 400 ms');
  });

  it('that is compressed is rejected', async () => {
    const { fetch, port } = await behind((_, response) =>
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('picture')),
    );
    expect(await refusalOf(fetch('/'))).toBe(
      `"references.test:${port}" sends the reference as "gzip", but only plain bytes are accepted; store it uncompressed`,
    );
  });

  for (const status of [204, 206, 304, 400, 401, 403, 404, 410]) {
    it(`with status ${status} is refused`, async () => {
      const { fetch, port } = await behind((_, response) => response.writeHead(status).end());
      expect(await refusalOf(fetch('/'))).toBe(
        `"references.test:${port}" answered ${status} for the reference; check its URL`,
      );
    });
  }

  for (const status of [408, 425, 429, 500, 502, 503]) {
    it(`with status ${status} may come later`, async () => {
      const { fetch, port } = await behind((_, response) => response.writeHead(status).end());
      expect(await unavailabilityOf(fetch('/'))).toBe(
        `"references.test:${port}" answered ${status} for the reference; try again later`,
      );
    });
  }

  it('that breaks off may be retried', async () => {
    const { fetch, port } = await behind((_, response) => {
      response.writeHead(200, { 'content-length': 1000 }).write('half');
      setTimeout(() => response.destroy(), 20);
    });
    expect(await unavailabilityOf(fetch('/'))).toBe(
      `the connection to "references.test:${port}" for the reference failed (ECONNRESET); try again later`,
    );
  });

  it('from a port without a server may be retried', async () => {
    // Port 1 of loopback: nothing listens there.
    const fetcher = createReferenceFetcher({
      ...limits,
      allowedHosts: ['references.test:1'],
      lookup: async () => loopback,
      isAllowedAddress: () => true,
    });
    expect(await unavailabilityOf(fetcher.fetch('https://references.test:1/', never))).toBe(
      'the connection to "references.test:1" for the reference failed (ECONNREFUSED); try again later',
    );
  });
});

describe('an abort', () => {
  const cancelled = new InferenceError('CANCELLED', 'the job was cancelled');

  it('ends a fetch with its own reason and hangs up', async () => {
    const abort = new AbortController();
    let hungUp: () => void = () => {};
    const closed = new Promise<void>((resolve) => {
      hungUp = resolve;
    });
    const { fetch } = await behind((_, response) => {
      response.on('close', hungUp);
      response.write('half');
      setTimeout(() => abort.abort(cancelled), 20);
    });
    await expect(fetch('/', abort.signal)).rejects.toBe(cancelled);
    await closed;
  });

  it('before the fetch leaves the host alone', async () => {
    const { server, fetch } = await behind((_, response) => response.end());
    await expect(fetch('/', AbortSignal.abort(cancelled))).rejects.toBe(cancelled);
    expect(server.connections()).toBe(0);
  });
});

describe('a host that switches to another protocol', () => {
  const switching = (request: IncomingMessage) => {
    request.socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: anything\r\n\r\n');
  };

  it('is an answer of no use at once', { timeout: 5000 }, async () => {
    const { fetch } = await behind(switching, { timeoutMs: 60_000 });
    expect(await refusalOf(fetch('/a.png'))).toMatch(/answered 101 for the reference; check its URL$/);
  });

  it('holds up neither a cancel nor other references', { timeout: 5000 }, async () => {
    const { fetch } = await behind((request, response) =>
      request.url === '/b.png' ? response.end('image') : undefined,
    );
    const abort = new AbortController();
    const stuck = fetch('/a.png', abort.signal);
    const reason = new Error('cancelled');
    setTimeout(() => abort.abort(reason), 100);
    await expect(stuck).rejects.toBe(reason);
    expect(Buffer.from(await fetch('/b.png')).toString()).toBe('image');
  });
});
