import { type NetworkSession, outputOf } from '../../../runtime/session.js';
import { groupBy } from '../../../std/group-by.js';
import type { ClipTokenizer } from '../../../tokenizer/clip.js';
import type { TextEncoderConfig } from '../model/config.js';
import { HIDDEN } from '../model/text-encoder.js';
import type { TextRow } from './prompt-conditioning.js';

/** Rows of one run: enough to fill a GPU with 77 tokens each, and their states stay small. */
const BATCH = 8;

export interface PromptTextEncoder {
  readonly tokenizer: ClipTokenizer;
  readonly session: NetworkSession;
  readonly config: TextEncoderConfig;
  /** It has a pooled output, and takes the position to pool. */
  readonly projected: boolean;
}

export interface RowStates {
  /** [L, C] */
  readonly hidden: Float32Array;
  /** [P]; absent where the encoder does not project. */
  readonly pooled?: Float32Array;
}

/** The states of each row. Equal rows are run once; the rest go through the encoder a few at a time. */
export async function runTextRows(
  encoder: PromptTextEncoder,
  rows: readonly TextRow[],
): Promise<ReadonlyMap<TextRow, RowStates>> {
  const groups = [...groupBy(rows, ({ ids, hidden }) => `${ids} ${hidden ?? ''}`).values()];
  const states = new Map<TextRow, RowStates>();
  for (let i = 0; i < groups.length; i += BATCH) {
    const batch = groups.slice(i, i + BATCH);
    const run = await runBatch(
      encoder,
      batch.flatMap(([row]) => row ?? []),
    );
    for (const [k, result] of run.entries()) {
      for (const row of batch[k] ?? []) states.set(row, result);
    }
  }
  return states;
}

async function runBatch(
  { session, config, projected }: PromptTextEncoder,
  rows: readonly TextRow[],
): Promise<RowStates[]> {
  // A tokenizer may stop short of the encoder's positions. No token sees a later one, so what fills them changes nothing.
  const positions = config.max_position_embeddings;
  const shape = [rows.length, positions];
  const ids = new Int32Array(rows.length * positions);
  const hide = new Float32Array(rows.length * positions);
  for (const [k, row] of rows.entries()) {
    ids.set(row.ids, k * positions);
    if (row.hidden) hide.fill(HIDDEN, k * positions + row.hidden[0], k * positions + row.hidden[1] + 1);
  }
  const end = rows.map((row, k) => k * positions + endTokenIndex(row.ids, config.eos_token_id));
  const outputs = await session.run({
    ids: { data: ids, shape },
    hide: { data: hide, shape },
    ...(projected && { end: { data: Int32Array.from(end), shape: [rows.length] } }),
  });
  const hidden = outputOf(outputs, 'hidden', 'a text encoder');
  const { pooled } = outputs;
  const width = config.hidden_size;
  return rows.map((row, k) => {
    const from = k * positions * width;
    const states = { hidden: hidden.slice(from, from + row.ids.length * width) };
    const size = (pooled?.length ?? 0) / rows.length;
    return pooled === undefined ? states : { ...states, pooled: pooled.slice(k * size, (k + 1) * size) };
  });
}

/**
 * The position whose state is pooled. Configurations from before transformers 4.31 name 2 as the end token; there the largest
 * id marks it. https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L617
 */
export function endTokenIndex(ids: Int32Array, eosTokenId: number): number {
  const wanted = eosTokenId === 2 ? ids.reduce((largest, id) => Math.max(largest, id), 0) : eosTokenId;
  return Math.max(0, ids.indexOf(wanted));
}
