import { describe, expect, it } from 'vitest';
import { createReferenceFetcher } from '../../src/references/reference-fetcher.js';
import { refusalOf } from '../support/reference-errors.js';

const never = new AbortController().signal;
const limits = { maxBytes: 1_000_000, timeoutMs: 10_000 };

describe('a URL that is not fetched', () => {
  const untouched = createReferenceFetcher({
    ...limits,
    allowedHosts: ['storage.example.com', '*.supabase.co'],
    lookup: () => {
      throw new Error('a refused URL was resolved');
    },
  });

  const HTTPS_ONLY = 'and only https is fetched; give an https URL';
  const cases: readonly [string, string, string][] = [
    ['http:', 'http://storage.example.com/a.png', `the URL of the reference begins with "http:", ${HTTPS_ONLY}`],
    ['file:', 'file:///etc/hostname', `the URL of the reference begins with "file:", ${HTTPS_ONLY}`],
    ['data:', 'data:image/png;base64,iVBORw0KGgo=', `the URL of the reference begins with "data:", ${HTTPS_ONLY}`],
    ['ftp:', 'ftp://storage.example.com/a.png', `the URL of the reference begins with "ftp:", ${HTTPS_ONLY}`],
    [
      'no URL',
      'storage.example.com/a.png',
      'the URL of the reference is not valid; give one that begins with https://',
    ],
    ['nothing', '', 'the URL of the reference is not valid; give one that begins with https://'],
    [
      'a password',
      'https://reader:secret@storage.example.com/a.png',
      'the URL of the reference contains a user name or a password; give one without',
    ],
    [
      'a user name',
      'https://storage.example.com@evil.test/a.png',
      'the URL of the reference contains a user name or a password; give one without',
    ],
    [
      'a host not in the list',
      'https://evil.test/a.png?token=secret',
      'the host of the reference, "evil.test", is not allowed; add it to REFERENCE_HOSTS or use another host',
    ],
    [
      'a host that only ends like one in the list',
      'https://evilsupabase.co/',
      'the host of the reference, "evilsupabase.co", is not allowed; add it to REFERENCE_HOSTS or use another host',
    ],
    [
      'another port',
      'https://storage.example.com:8443/',
      'the host of the reference, "storage.example.com:8443", is not allowed; add it to REFERENCE_HOSTS or use another host',
    ],
    [
      'a public address',
      'https://8.8.8.8/a.png',
      'the host of the reference, "8.8.8.8", is not allowed; add it to REFERENCE_HOSTS or use another host',
    ],
  ];
  for (const [name, url, sentence] of cases) {
    it(`has ${name}`, async () => expect(await refusalOf(untouched.fetch(url, never))).toBe(sentence));
  }

  const addresses: readonly [string, string][] = [
    ['10.1.2.3', '10.1.2.3'],
    ['192.168.0.1', '192.168.0.1'],
    ['172.16.0.1', '172.16.0.1'],
    ['127.0.0.1', '127.0.0.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['100.100.100.200', '100.100.100.200'],
    ['169.254.169.254', '169.254.169.254'],
    ['[::1]', '::1'],
    ['[fd00::1]', 'fd00::1'],
    ['[::ffff:127.0.0.1]', '::ffff:7f00:1'],
    ['[64:ff9b::7f00:1]', '64:ff9b::7f00:1'],
    ['2130706433', '127.0.0.1'],
    ['0x7f.1', '127.0.0.1'],
    ['0177.0.0.1', '127.0.0.1'],
    ['127.1', '127.0.0.1'],
    ['１２７.0.0.1', '127.0.0.1'],
    ['0xa9fea9fe', '169.254.169.254'],
  ];
  for (const [host, address] of addresses) {
    it(`has the address ${host}`, async () => {
      expect(await refusalOf(untouched.fetch(`https://${host}/latest/meta-data/`, never))).toBe(
        `the host of the reference, ${address}, is not a public address; use another host`,
      );
    });
  }

  it('has 8193 characters', async () => {
    const of = (length: number) => `https://evil.test/${'a'.repeat(length - 'https://evil.test/'.length)}`;
    expect(await refusalOf(untouched.fetch(of(8193), never))).toBe(
      'the URL of the reference has 8193 characters, and the limit is 8192; give a shorter one',
    );
    expect(await refusalOf(untouched.fetch(of(8192), never))).toContain('is not allowed');
  });

  it('is every URL while no host is allowed', async () => {
    const none = createReferenceFetcher({ ...limits, allowedHosts: [] });
    expect(await refusalOf(none.fetch('https://storage.example.com/a.png', never))).toBe(
      'this server fetches no references; send the bytes, or ask its operator to set REFERENCE_HOSTS, for example to *.supabase.co',
    );
  });

  it('is not allowed by an entry that is not a host', () => {
    expect(() => createReferenceFetcher({ ...limits, allowedHosts: ['*'] })).toThrow(
      'REFERENCE_HOSTS has "*", which is not a host name; give names like storage.example.com or *.example.com',
    );
  });
});
