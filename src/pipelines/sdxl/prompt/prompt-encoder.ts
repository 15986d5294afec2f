import { InferenceError } from '../../../errors.js';
import type { NetworkSession } from '../../../runtime/session.js';
import type { Embedding } from '../../embeddings/read-embedding.js';
import type { PromptReport, PromptSyntax } from '../../pipeline.js';
import type { TextChunks } from './prompt-chunks.js';
import {
  blendStates,
  chunkRows,
  joinStates,
  mixStates,
  padStates,
  sideBySide,
  type TextRow,
  weighStates,
} from './prompt-conditioning.js';
import { countsOf, learnedRows, withEmbeddings } from './prompt-embeddings.js';
import { chunkCount, planPrompt } from './prompt-plan.js';
import type { ParsedPrompt } from './prompt-weights.js';
import { type PromptTextEncoder, type RowStates, runTextRows } from './text-rows.js';

/** Stands for the empty prompt's states where nothing needs them. */
const NONE = new Float32Array();

/** The embeddings of one prompt, which the UNet is conditioned on. */
export interface PromptEmbeds {
  /** [1, T, X]: both encoders' penultimate states, side by side. */
  readonly embeds: Float32Array;
  /** [1, P] */
  readonly pooled: Float32Array;
  /** T: the tokenizer's length times the chunks. */
  readonly tokens: number;
  readonly report: PromptReport;
}

/** Runs both text encoders over prompts. */
export class PromptEncoder {
  readonly #encoders: readonly [PromptTextEncoder, PromptTextEncoder];
  readonly #empty = new Map<NetworkSession, Float32Array>();

  /** @throws InferenceError CHECKPOINT_INVALID where the tokenizers do not fit the encoders */
  constructor(first: Omit<PromptTextEncoder, 'projected'>, second: Omit<PromptTextEncoder, 'projected'>) {
    this.#encoders = [
      { ...first, projected: false },
      { ...second, projected: true },
    ];
    for (const { tokenizer, config } of this.#encoders) {
      const most = Math.min(config.max_position_embeddings, first.tokenizer.maxLength);
      if (tokenizer.maxLength <= most) continue;
      throw new InferenceError(
        'CHECKPOINT_INVALID',
        `model_max_length ${tokenizer.maxLength} of a tokenizer must be <= ${most}, what both text encoders take`,
      );
    }
  }

  /** Tokens of a prompt of one chunk. */
  get tokens(): number {
    return this.#encoders[0].tokenizer.maxLength;
  }

  /** Widths of the two encoders' states. */
  get widths(): readonly [number, number] {
    const [first, second] = this.#encoders;
    return [first.config.hidden_size, second.config.hidden_size];
  }

  /**
   * Never fails because of the prompt's text: weights that cannot be read are encoded as text, and `report` has the reason.
   * @param embeddings whose names the prompt may have
   */
  async encode(prompt: string, syntax: PromptSyntax, embeddings: readonly Embedding[] = []): Promise<PromptEmbeds> {
    const counted = embeddings.map(countsOf);
    const [first, second] = this.#encoders.map((encoder, i) => ({
      ...encoder,
      tokenizer: withEmbeddings(encoder.tokenizer, counted, i),
      learned: learnedRows(embeddings, i),
    })) as [PromptTextEncoder, PromptTextEncoder];
    const { parsed, encoders, report } = planPrompt([first.tokenizer, second.tokenizer], prompt, syntax);
    const [texts = [], texts2 = []] = encoders;
    const tokens = this.tokens * report.chunks;
    // The pooled vector has no weights: it is that of the text as written, cut at one chunk.
    // https://github.com/damian0815/compel/blob/main/src/compel/compel.py#L127
    const pooledRows = parsed.pooled.map(({ text, weight }) => ({ ids: second.tokenizer.encode(text).ids, weight }));
    const one = await this.#states(first, parsed, texts, tokens);
    const two = await this.#states(second, parsed, texts2, tokens, pooledRows);
    const pooled = blendStates(
      pooledRows.map((row) => pooledOf(two.rows, row)),
      pooledRows.map(({ weight }) => weight),
      NONE,
    );
    return { embeds: sideBySide(one.states, two.states, tokens), pooled, tokens, report };
  }

  /** Zeros in the place of a negative prompt that was not given, as the checkpoint asks. `tokens`: as many as the prompt has. */
  zeros(tokens = this.tokens): PromptEmbeds {
    return {
      embeds: new Float32Array(tokens * this.#width),
      pooled: new Float32Array(this.#encoders[1].config.projection_dim),
      tokens,
      report: { chunks: tokens / this.tokens, tokens: 0, dropped: 0, strategy: 'none' },
    };
  }

  /**
   * Brings embeddings to the length of the longest: shorter ones go on as the empty prompt.
   * https://github.com/damian0815/compel/blob/main/src/compel/compel.py#L302
   */
  async padToSameLength(embeds: readonly PromptEmbeds[]): Promise<readonly PromptEmbeds[]> {
    const tokens = Math.max(...embeds.map((each) => each.tokens));
    if (embeds.every((each) => each.tokens === tokens)) return embeds;
    const [first, second] = this.#encoders;
    const empty = sideBySide(await this.#emptyStates(first), await this.#emptyStates(second), this.tokens);
    return embeds.map((each) => ({ ...each, tokens, embeds: padStates(each.embeds, tokens * this.#width, empty) }));
  }

  /** Width of the embeddings: both encoders' states side by side. */
  get #width(): number {
    return this.widths[0] + this.widths[1];
  }

  /** States of one encoder, [tokens, C], with those of all rows it ran. */
  async #states(
    encoder: PromptTextEncoder,
    parsed: ParsedPrompt,
    texts: readonly TextChunks[],
    tokens: number,
    more: readonly TextRow[] = [],
  ): Promise<{ states: Float32Array; rows: ReadonlyMap<TextRow, RowStates> }> {
    const plans = texts.map(chunkRows);
    const wanted = plans.flatMap((chunks) => chunks.flatMap(({ row, without }) => [row, ...without.map((w) => w.row)]));
    const rows = await runTextRows(encoder, [...wanted, ...more]);
    const whole = !parsed.weighted && chunkCount(parsed, texts) * this.tokens === tokens;
    const empty = whole ? NONE : await this.#emptyStates(encoder);

    const prompts = plans.map((chunks) => {
      const states = chunks.map(({ row, weights, without }) => {
        const weighed = (each: TextRow) => weighStates(hiddenOf(rows, each), weights, empty);
        return mixStates(
          weighed(row),
          without.map((other) => ({ states: weighed(other.row), share: other.share })),
        );
      });
      return joinStates(states, [], empty);
    });
    const combine = parsed.kind === 'blend' ? blendStates : joinStates;
    const width = encoder.config.hidden_size;
    return { states: padStates(combine(prompts, parsed.weights, empty), tokens * width, empty), rows };
  }

  /** States of the empty prompt, [L, C]. */
  async #emptyStates(encoder: PromptTextEncoder): Promise<Float32Array> {
    const known = this.#empty.get(encoder.session);
    if (known !== undefined) return known;
    const row = { ids: encoder.tokenizer.encode('').ids };
    const states = hiddenOf(await runTextRows(encoder, [row]), row);
    this.#empty.set(encoder.session, states);
    return states;
  }
}

function hiddenOf(rows: ReadonlyMap<TextRow, RowStates>, row: TextRow): Float32Array {
  const states = rows.get(row);
  if (states === undefined) throw new Error('a row was not run');
  return states.hidden;
}

function pooledOf(rows: ReadonlyMap<TextRow, RowStates>, row: TextRow): Float32Array {
  const pooled = rows.get(row)?.pooled;
  if (pooled === undefined) throw new Error('the second text encoder has no pooled output');
  return pooled;
}
