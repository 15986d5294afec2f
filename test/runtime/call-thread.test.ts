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
    // Held until the calls have ended: an address keeps nothing alive.
    const texts = ['a red kite\0', 'kite\0', 'ship\0'].map((text) => Buffer.from(text));
    const [text = 0n, kite = 0n, ship = 0n] = texts.map((buffer) => koffi.address(buffer));
    expect(await thread.call(addressOf('strstr'), [text, kite])).toBe(text + 6n);
    expect(await thread.call(addressOf('strstr'), [text, ship])).toBeNull();
    expect(texts.map(String)).toEqual(['a red kite\0', 'kite\0', 'ship\0']);
  });
});
