import { type Feed, type NetworkSession, outputOf } from '../../../runtime/session.js';
import { groupBy } from '../../../std/group-by.js';
import type { ClipTokenizer } from '../../../tokenizer/clip.js';
import type { TextEncoderConfig } from '../model/config.js';
import { HIDDEN } from '../model/text-encoder.js';
import type { TextRow } from './prompt-conditioning.js';
import { FIRST_LEARNED } from './prompt-embeddings.js';

/** Rows of one run: enough to fill a GPU with 77 tokens each, and their states stay small. */
const BATCH = 8;

export interface PromptTextEncoder {
  readonly tokenizer: ClipTokenizer;
  readonly session: NetworkSession;
  readonly config: TextEncoderConfig;
  /** It has a pooled output, and takes the position to pool. */
  readonly projected: boolean;
  /** Vectors of the ids from FIRST_LEARNED on, [N, C]. Omitted: there are none. */
  readonly learned?: Float32Array | undefined;
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
  { session, config, projected, learned }: PromptTextEncoder,
  rows: readonly TextRow[],
): Promise<RowStates[]> {
  // A tokenizer may stop short of the encoder's positions. No token sees a later one, so what fills them changes nothing.
  const positions = config.max_position_embeddings;
  const shape = [rows.length, positions];
  const width = config.hidden_size;
  const ids = new Int32Array(rows.length * positions);
  const at = new Int32Array(rows.length * positions);
  const kept = new Float32Array(rows.length * positions).fill(1);
  const hide = new Float32Array(rows.length * positions);
  for (const [k, row] of rows.entries()) {
    ids.set(row.ids, k * positions);
    for (const [i, id] of row.ids.entries()) {
      if (id < FIRST_LEARNED) continue;
      const position = k * positions + i;
      ids[position] = 0;
      at[position] = 1 + id - FIRST_LEARNED;
      kept[position] = 0;
    }
    if (row.hidden) hide.fill(HIDDEN, k * positions + row.hidden[0], k * positions + row.hidden[1] + 1);
  }
  const end = rows.map((row, k) => k * positions + endTokenIndex(row.ids, config.eos_token_id));
  const outputs = await session.run({
    ids: { data: ids, shape },
    hide: { data: hide, shape },
    learned: learnedTable(learned, width),
    at: { data: at, shape },
    kept: { data: kept, shape: [...shape, 1] },
    ...(projected && { end: { data: Int32Array.from(end), shape: [rows.length] } }),
  });
  const hidden = outputOf(outputs, 'hidden', 'a text encoder');
  const { pooled } = outputs;
  return rows.map((row, k) => {
    const from = k * positions * width;
    const states = { hidden: hidden.slice(from, from + row.ids.length * width) };
    const size = (pooled?.length ?? 0) / rows.length;
    return pooled === undefined ? states : { ...states, pooled: pooled.slice(k * size, (k + 1) * size) };
  });
}

/** The vectors of embeddings behind a row of zeros, [1 + N, C]. */
function learnedTable(learned: Float32Array = new Float32Array(), width: number): Feed {
  const data = new Float32Array(width + learned.length);
  data.set(learned, width);
  return { data, shape: [data.length / width, width] };
}

/**
 * The position whose state is pooled. Configurations from before transformers 4.31 name 2 as the end token; there the largest
 * id marks it. Vectors of embeddings do not count: where transformers takes one of them for the end, this is the end still, as in the
 * trainers' own code (`pool_workaround` in https://github.com/kohya-ss/sd-scripts/blob/main/library/train_util.py).
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L617
 */
export function endTokenIndex(ids: Int32Array, eosTokenId: number): number {
  const largest = () => ids.reduce((most, id) => (id < FIRST_LEARNED ? Math.max(most, id) : most), 0);
  const wanted = eosTokenId === 2 ? largest() : eosTokenId;
  return Math.max(0, ids.indexOf(wanted));
}
