/**
 * npm run bench -- decode-parts [--released wan-1.3b] [--size 832x480] [--frames 5] [--threads 1]
 *
 * WAN's decoder over whole frames, and over the parts that it takes by default: CPU seconds, what the process grew by, and what was
 * computed for it. The model has the released sizes and weights of zeros.
 */
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { graphMemory } from '../../src/graph/graph-memory.js';
import { planarFrames } from '../../src/pipelines/common/frame-form.js';
import { NetworkOpener } from '../../src/pipelines/common/network-opener.js';
import { SessionGroup } from '../../src/pipelines/common/session-group.js';
import { layoutsOf, mostPixelsOn } from '../../src/pipelines/frame-parts.js';
import { Autoencoder } from '../../src/pipelines/wan/autoencoder.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { decoderParts } from '../../src/pipelines/wan/windows.js';
import { openBackend } from '../../src/runtime/backend.js';
import type { SyntheticWanSize } from '../../src/synthetic/sizes.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { beginNewPeak, print, residentMemory, row, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    released: { type: 'string', default: 'wan-1.3b' },
    size: { type: 'string', default: '832x480' },
    frames: { type: 'string', default: '5' },
    threads: { type: 'string', default: '1' },
  },
});
const [width = 0, height = 0] = options.size.split('x').map(Number);
const size = { width, height, frames: Number(options.frames) };
const path = await writeSyntheticWan(
  join(tmpdir(), `darkroom-parts-${process.pid}`),
  options.released as SyntheticWanSize,
  'BF16',
  true,
);
try {
  const backend = await openBackend({ provider: 'cpu', threads: Number(options.threads) });
  const checkpoint = await openWanCheckpoint({ path });
  const graphs = await buildWanNetworks(checkpoint, backend.dialectsOf);
  const decoders = [graphs.vae_decoder_first, graphs.vae_decoder_later];
  const { vae } = checkpoint.config;
  for (const isWhole of [true, false]) {
    const opener = new NetworkOpener(backend, Object.values(graphs));
    // Sessions of its own: an arena keeps what the other way took.
    await SessionGroup.fill(opener, async (sessions) => {
      const autoencoder = await Autoencoder.open(graphs, sessions, vae);
      const latents = autoencoder.latentSize(size);
      const [parts = []] = layoutsOf(latents, decoderParts(vae, mostPixelsOn()));
      const values = new Float32Array(vae.z_dim * latents.frames * latents.width * latents.height);
      await beginNewPeak();
      const before = await residentMemory('VmRSS');
      const lap = stopwatch();
      const way = isWhole ? {} : { parts };
      for await (const _ of autoencoder.decodeWith(planarFrames, autoencoder.decoders, values, size, way));
      row(isWhole ? 'whole frames' : `${parts.length} parts`, lap());
      const run = { ...size, rows: 1 };
      const computed = decoders.reduce((sum, network) => {
        const { sizes } = isWhole ? network : (network.parts ?? network);
        return sum + graphMemory(network.graph, sizes(run)).peakBytes;
      }, 0);
      const grown = (await residentMemory('VmHWM')) - before;
      print(`  grown by ${(grown / 1e9).toFixed(2)} GB, ${(computed / 1e9).toFixed(2)} GB computed for both graphs`);
      await sessions.release();
    });
  }
} finally {
  await rm(path, { recursive: true, force: true });
}
