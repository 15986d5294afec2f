import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';

const program = new URL('./fixtures/hanging-shutdown.mjs', import.meta.url).pathname;

async function start() {
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'pipe'] });
  await once(child.stdout, 'data');
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  return { child, stderr: () => stderr };
}

describe('a shutdown that hangs', () => {
  it('ends the process after its bound, and says so', async () => {
    const { child, stderr } = await start();
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(stderr()).toBe('darkroom: the shutdown hangs and was ended\n');
  });

  it('ends the process at once at a second signal', async () => {
    const { child, stderr } = await start();
    child.kill('SIGTERM');
    child.kill('SIGINT');
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(stderr()).toBe('');
  });
});
