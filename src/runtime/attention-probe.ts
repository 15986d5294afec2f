import { Graph } from '../graph/graph.js';
import { attention } from '../graph/ops.js';
import { createSession, type SessionDevice } from './session.js';

/** Wrong programs were seen to fail from 64 tokens on (docs/reference/graph.md). */
const TOKENS = 128;
const HEADS = 2;
const HEAD_WIDTH = 64;
/** Wrong results were off by 0.1 to 1.5, right ones by less than 1e-5. */
const TOLERANCE = 1e-3;

/** Runs fused attention once on the device and compares it with the same sum on the host. */
export async function isFusedAttentionRight(device: SessionDevice): Promise<boolean> {
  const width = HEADS * HEAD_WIDTH;
  const graph = new Graph('attention-probe', { attention: 'fused', compute: 'f32' });
  const [q, k, v] = ['q', 'k', 'v'].map((name) => graph.floatInput(name, [1, TOKENS, width]));
  if (q === undefined || k === undefined || v === undefined) return false;
  graph.output('mixed', attention(graph, { q, k, v, heads: HEADS }));
  const feed = (phase: number) => ({
    data: Float32Array.from({ length: TOKENS * width }, (_, i) => Math.sin(phase + i * 0.37) + Math.cos(i * phase)),
    shape: [1, TOKENS, width],
  });
  const feeds = { q: feed(1), k: feed(2), v: feed(3) };
  const session = await createSession(graph, device).catch(() => undefined);
  if (session === undefined) return false;
  try {
    const { mixed } = await session.run(feeds);
    const expected = attentionOnHost(feeds.q.data, feeds.k.data, feeds.v.data);
    return mixed !== undefined && expected.every((value, i) => Math.abs(value - (mixed[i] ?? Number.NaN)) < TOLERANCE);
  } finally {
    await session.release();
  }
}

// q, k, v: [T, heads*D] -> [T, heads*D]
function attentionOnHost(q: Float32Array, k: Float32Array, v: Float32Array): Float64Array {
  const width = HEADS * HEAD_WIDTH;
  const mixed = new Float64Array(TOKENS * width);
  for (let head = 0; head < HEADS; head += 1) {
    const at = (token: number) => token * width + head * HEAD_WIDTH;
    for (let t = 0; t < TOKENS; t += 1) {
      const weights = Array.from({ length: TOKENS }, (_, s) => {
        let score = 0;
        for (let d = 0; d < HEAD_WIDTH; d += 1) score += (q[at(t) + d] ?? 0) * (k[at(s) + d] ?? 0);
        return Math.exp(score / Math.sqrt(HEAD_WIDTH));
      });
      const sum = weights.reduce((total, weight) => total + weight, 0);
      for (const [s, weight] of weights.entries()) {
        for (let d = 0; d < HEAD_WIDTH; d += 1) {
          mixed[at(t) + d] = (mixed[at(t) + d] ?? 0) + (weight / sum) * (v[at(s) + d] ?? 0);
        }
      }
    }
  }
  return mixed;
}
