import { describe, expect, it } from 'vitest';
import { isPublicAddress } from '../../src/references/public-address.js';

// The first and last address of each range that is not public, and its public neighbours.
const ranges: readonly { what: string; inside: readonly string[]; outside?: readonly string[] }[] = [
  { what: 'this network', inside: ['0.0.0.0', '0.255.255.255'], outside: ['1.0.0.0'] },
  { what: 'private 10/8', inside: ['10.0.0.0', '10.255.255.255'], outside: ['9.255.255.255', '11.0.0.0'] },
  { what: 'carrier-grade NAT', inside: ['100.64.0.0', '100.127.255.255'], outside: ['100.63.255.255', '100.128.0.0'] },
  { what: 'loopback', inside: ['127.0.0.0', '127.255.255.255'], outside: ['126.255.255.255', '128.0.0.0'] },
  { what: "Azure's host", inside: ['168.63.129.16'], outside: ['168.63.129.15', '168.63.129.17'] },
  {
    what: 'link-local',
    inside: ['169.254.0.0', '169.254.169.254', '169.254.255.255'],
    outside: ['169.253.255.255', '169.255.0.0'],
  },
  { what: 'private 172.16/12', inside: ['172.16.0.0', '172.31.255.255'], outside: ['172.15.255.255', '172.32.0.0'] },
  { what: 'protocol assignments', inside: ['192.0.0.0', '192.0.0.255'], outside: ['191.255.255.255', '192.0.1.0'] },
  { what: 'documentation 1', inside: ['192.0.2.0', '192.0.2.255'], outside: ['192.0.1.255', '192.0.3.0'] },
  { what: '6to4 relays', inside: ['192.88.99.0', '192.88.99.255'], outside: ['192.88.98.255', '192.88.100.0'] },
  {
    what: 'private 192.168/16',
    inside: ['192.168.0.0', '192.168.255.255'],
    outside: ['192.167.255.255', '192.169.0.0'],
  },
  { what: 'benchmarking', inside: ['198.18.0.0', '198.19.255.255'], outside: ['198.17.255.255', '198.20.0.0'] },
  { what: 'documentation 2', inside: ['198.51.100.0', '198.51.100.255'], outside: ['198.51.99.255', '198.51.101.0'] },
  { what: 'documentation 3', inside: ['203.0.113.0', '203.0.113.255'], outside: ['203.0.112.255', '203.0.114.0'] },
  { what: 'multicast', inside: ['224.0.0.0', '239.255.255.255'], outside: ['223.255.255.255'] },
  { what: 'reserved and broadcast', inside: ['240.0.0.0', '255.255.255.255'] },
  { what: 'IPv6 unspecified and loopback', inside: ['::', '::1'] },
  { what: 'IPv4 in IPv6', inside: ['::7f00:1', '::ffff:8.8.8.8', '::ffff:127.0.0.1', '::ffff:0:7f00:1'] },
  { what: 'NAT64', inside: ['64:ff9b::8.8.8.8', '64:ff9b:1::1'] },
  { what: 'discard-only', inside: ['100::1'] },
  {
    what: 'Teredo and protocol assignments',
    inside: ['2001::1', '2001:1ff:ffff::'],
    outside: ['2001:200::', '2001:4860:4860::8888'],
  },
  {
    what: 'IPv6 documentation',
    inside: ['2001:db8::', '2001:db8:ffff::1', '3fff::1', '3fff:fff:ffff::'],
    outside: ['2001:db9::', '3fff:1000::'],
  },
  { what: '6to4', inside: ['2002::', '2002:7f00:1::', '2002:ffff:ffff::'], outside: ['2003::', '2001:ffff::'] },
  { what: 'not given out', inside: ['1fff:ffff::', '4000::', '5f00::1'], outside: ['2000::', '3ffe:ffff::'] },
  { what: 'unique local', inside: ['fc00::1', 'fd00::1', 'fd00:ec2::254'] },
  { what: 'IPv6 link-local and site-local', inside: ['fe80::1', 'fe80::1%eth0', 'fec0::1'] },
  { what: 'IPv6 multicast', inside: ['ff00::', 'ff02::1'] },
  { what: 'no address', inside: ['', 'localhost', '127.1', '8.8.8', '0x8.8.8.8', '[2000::1]', '8.8.8.8 '] },
];

describe('isPublicAddress', () => {
  for (const { what, inside, outside = [] } of ranges) {
    it(`refuses ${what}${outside.length > 0 ? ', and not its neighbours' : ''}`, () => {
      expect(inside.filter(isPublicAddress)).toEqual([]);
      expect(outside.filter((address) => !isPublicAddress(address))).toEqual([]);
    });
  }
});
