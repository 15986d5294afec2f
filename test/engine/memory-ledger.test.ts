import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { MemoryLedger } from '../../src/engine/memory-ledger.js';
import { measureCard, measureMemory } from '../../src/runtime/device-memory.js';
import { tempFolder } from '../support/temp-folder.js';

const GB = 1e9;

/** A card of 10 GB with so much free. */
function ledger(free: () => number, waitMs = 0) {
  const measure = async () => ({ kind: 'VRAM' as const, totalBytes: 10 * GB, freeBytes: free() });
  return new MemoryLedger({ measure, reserveBytes: GB, waitMs, pollMs: 5 });
}

describe('MemoryLedger', () => {
  it('grants what fits beside the reserve, to the byte', async () => {
    await expect(ledger(() => 4 * GB).grant('qwen', 3 * GB)).resolves.toBeDefined();
    await expect(ledger(() => 4 * GB).grant('qwen', 3 * GB + 1)).rejects.toMatchObject({
      reason: 'OUT_OF_MEMORY',
      message:
        'model qwen needs 3.0 GB of VRAM, 3.0 GB of 10.0 GB are free beside the other models and 1.0 GB in reserve; use a smaller one, or lower MEMORY_RESERVE_BYTES',
    });
  });

  it('counts what was granted and is not filled yet', async () => {
    const memory = ledger(() => 6 * GB);
    const grant = await memory.grant('one', 4 * GB);
    await expect(memory.grant('two', 2 * GB)).rejects.toMatchObject({ reason: 'OUT_OF_MEMORY' });
    grant.settle();
    await expect(memory.grant('two', 2 * GB)).resolves.toBeDefined();
  });

  it('waits for room that others give back', async () => {
    let looks = 0;
    const memory = ledger(() => (++looks < 4 ? 0 : 8 * GB), 60_000);
    await memory.grant('qwen', 5 * GB);
    expect(looks).toBe(4);
  });

  it('does not wait for what can never be, nor for whoever gave up', async () => {
    const memory = ledger(() => 0, 60_000);
    await expect(memory.grant('qwen', 9 * GB + 1)).rejects.toMatchObject({ reason: 'OUT_OF_MEMORY' });
    await expect(memory.grant('qwen', GB, AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
  });
});

describe('measureCard', () => {
  const withDriver = async (script: string) => {
    const folder = await tempFolder();
    await writeFile(join(folder, 'nvidia-smi'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    vi.stubEnv('PATH', `${folder}:${process.env.PATH}`);
    onTestFinished(() => {
      vi.unstubAllEnvs();
    });
  };

  it('reads what the driver says of the first card', async () => {
    await withDriver('echo "49140, 40000"; echo "24564, 1"');
    const card = { kind: 'VRAM', totalBytes: 49_140 * 2 ** 20, freeBytes: 40_000 * 2 ** 20 };
    expect(await measureCard()).toEqual(card);
    expect(await measureMemory('cuda', [])).toEqual(card);
    expect((await measureMemory('cpu', [])).kind).toBe('memory');
  });

  it.each(['exit 9', 'echo "No devices were found"', 'echo "[N/A], [N/A]"'])(
    'knows none where it answers %s',
    async (script) => {
      await withDriver(script);
      expect(await measureCard()).toBeUndefined();
    },
  );
});

describe('measureMemory', () => {
  it('keeps the peaks of loaded engines free', async () => {
    const before = await measureMemory('cpu', []);
    const after = await measureMemory('cpu', [{ residentBytes: 0, peakBytes: before.totalBytes }]);
    expect(before).toMatchObject({ kind: 'memory', totalBytes: expect.any(Number) as number });
    expect(before.freeBytes).toBeGreaterThan(0);
    expect(after.freeBytes).toBe(0);
  });
});

describe('room for jobs', () => {
  const room = (bytes: number, leastBytes: number, mayWait = () => false) => ({
    ...{ bytes, leastBytes, mayWait },
    device: 'cuda:0',
  });

  it('is theirs where it is free, without the reserve, and counts until they end', async () => {
    const memory = ledger(() => 4 * GB);
    const grant = await memory.grantJobs(room(4 * GB, GB));
    await expect(memory.grantJobs(room(GB, GB))).rejects.toMatchObject({ reason: 'OUT_OF_MEMORY' });
    grant.keep(GB);
    await expect(memory.grant('qwen', 2 * GB)).resolves.toBeDefined();
  });

  it('is not measured for jobs that need no more than their engine holds', async () => {
    const measure = () => Promise.reject(new Error('asked the driver'));
    const memory = new MemoryLedger({ measure, reserveBytes: GB });
    await expect(memory.grantJobs(room(0, 0))).resolves.toBeDefined();
  });

  it('is made by ending an idle language model', async () => {
    let free = GB;
    const memory = ledger(() => free);
    memory.onShortage(async () => {
      if (free > GB) return false;
      free = 9 * GB;
      return true;
    });
    await expect(memory.grantJobs(room(8 * GB, 8 * GB))).resolves.toBeDefined();
  });

  it('is waited for while another engine of the device works', async () => {
    let looks = 0;
    const memory = ledger(() => (++looks < 4 ? GB : 8 * GB), 60_000);
    await memory.grantJobs(room(5 * GB, 5 * GB, () => true));
    expect(looks).toBe(4);
  });

  it('may be less for jobs that fit in small batches and tiles; others are refused with the numbers', async () => {
    await expect(ledger(() => 2 * GB).grantJobs(room(5 * GB, 2 * GB))).resolves.toBeDefined();
    await expect(ledger(() => 2 * GB).grantJobs(room(5 * GB, 3 * GB))).rejects.toMatchObject({
      reason: 'OUT_OF_MEMORY',
      message:
        'Insufficient VRAM for generation: the job needs at least 3.0 GB more of VRAM on cuda:0, 2.0 GB of 10.0 GB are free beside what is loaded; request a smaller size or fewer frames',
    });
  });
});
