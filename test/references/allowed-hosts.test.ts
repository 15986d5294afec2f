import { describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import { isAllowedHost, parseAllowedHost } from '../../src/references/allowed-hosts.js';

function allows(entry: string, url: string): boolean {
  const host = parseAllowedHost(entry);
  if (host === undefined) throw new Error(`${entry} is no host`);
  return isAllowedHost(new URL(url), [host]);
}

describe('an allowed host', () => {
  const cases: readonly [string, string, boolean][] = [
    ['storage.example.com', 'https://storage.example.com/a.png', true],
    ['storage.example.com', 'https://STORAGE.Example.com:443/a.png', true],
    ['Storage.Example.com', 'https://storage.example.com/', true],
    ['bücher.example', 'https://xn--bcher-kva.example/', true],
    ['storage.example.com', 'https://a.storage.example.com/', false],
    ['storage.example.com', 'https://example.com/', false],
    ['storage.example.com', 'https://storage.example.com.evil.test/', false],
    ['storage.example.com', 'https://storage.example.com./', false],
    ['storage.example.com', 'https://storage.example.com:8443/', false],
    ['storage.example.com:8443', 'https://storage.example.com:8443/', true],
    ['storage.example.com:8443', 'https://storage.example.com/', false],
    ['storage.example.com:443', 'https://storage.example.com/', true],
    ['*.example.com', 'https://a.example.com/', true],
    ['*.example.com', 'https://a.b.example.com/', true],
    ['*.example.com', 'https://example.com/', false],
    ['*.example.com', 'https://evilexample.com/', false],
    ['*.example.com:8443', 'https://a.example.com:8443/', true],
    ['localhost:8443', 'https://localhost:8443/', true],
  ];
  for (const [entry, url, allowed] of cases) {
    it(`${entry} ${allowed ? 'allows' : 'does not allow'} ${url}`, () => expect(allows(entry, url)).toBe(allowed));
  }

  const none = [
    '',
    '*',
    '*.',
    '*.com',
    'a.*.com',
    '*example.com',
    '10.0.0.1',
    '8.8.8.8',
    '2130706433',
    '0x7f.1',
    '[::1]',
    '*.0.0.1',
    'https://example.com',
    'example.com/path',
    'user@example.com',
    'example.com:99999',
    'a b.example.com',
  ];
  for (const entry of none) {
    it(`is not "${entry}"`, () => expect(parseAllowedHost(entry)).toBeUndefined());
  }
});

describe('REFERENCE_HOSTS', () => {
  it('is a list', () => {
    const { REFERENCE_HOSTS } = readConfig({ REFERENCE_HOSTS: 'storage.example.com, *.supabase.co:8443,' });
    expect(REFERENCE_HOSTS).toEqual(['storage.example.com', '*.supabase.co:8443']);
  });

  it('is rejected for one entry that is not a host', () => {
    expect(() => readConfig({ REFERENCE_HOSTS: 'storage.example.com,*' })).toThrow(
      'REFERENCE_HOSTS "storage.example.com,*": must be names like *.supabase.co',
    );
  });
});
