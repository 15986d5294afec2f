import koffi from 'koffi';
import { describe, expect, it } from 'vitest';
import { CallThread } from '../../src/runtime/native/call-thread.js';

const libc = koffi.load('libc.so.6');
const addressOf = (name: string) => koffi.address(libc.symbol(name, 'void'));

describe('a thread for calls', () => {
  it('makes all of them, and they are not the main thread’s', async () => {
    const thread = new CallThread();
    const gettid = addressOf('gettid');
    const ids = await Promise.all(Array.from({ length: 20 }, () => thread.call(gettid, [])));
    expect(new Set(ids).size).toBe(1);
    expect(ids[0]).not.toBe(BigInt(libc.func('gettid', 'int', [])()));
  });

  it('passes pointers and gives back what the function returns', async () => {
    const thread = new CallThread();
    const text = Buffer.from('a red kite\0');
    const found = await thread.call(addressOf('strstr'), [koffi.address(text), koffi.address(Buffer.from('kite\0'))]);
    expect(found).toBe(koffi.address(text) + 6n);
    const missing = await thread.call(addressOf('strstr'), [koffi.address(text), koffi.address(Buffer.from('ship\0'))]);
    expect(missing).toBeNull();
  });
});
