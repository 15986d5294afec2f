import { useSignal, useSignalEffect } from '@preact/signals';
import { ApiError, post, type Tokens } from '../state/api';
import { reconnects } from '../state/connection';
import { chosenModel, form, takesWeights } from '../state/form';
import { afterPause } from '../state/timing';

/** Time without a key after which the prompt is counted, in ms. */
const PAUSE_MS = 250;
const NEUTRAL = 0.005;

/** The prompt with the number of its tokens, and what each weight applies to. */
export function PromptField() {
  const tokens = useSignal<Tokens | undefined>(undefined);
  const problem = useSignal('');
  useSignalEffect(() => {
    const text = form.prompt.value;
    const model = chosenModel()?.name;
    reconnects.value;
    if (!takesWeights() || model === undefined || text.trim() === '') {
      tokens.value = undefined;
      problem.value = '';
      return;
    }
    return afterPause(PAUSE_MS, async (signal) => {
      try {
        const body = { text, model, promptSyntax: 'weighted' };
        tokens.value = await post<Tokens>('api/tokenize', body, signal);
        problem.value = '';
      } catch (caught) {
        if (!signal.aborted) problem.value = ApiError.from(caught).message;
      }
    });
  });
  const largest = tokens.value?.encoders?.reduce((most, one) => ((one.tokens ?? 0) > (most.tokens ?? 0) ? one : most));
  const weighted = tokens.value?.phrases?.filter(({ weight = 0 }) => Math.abs(weight - 1) > NEUTRAL) ?? [];
  return (
    <div class="prompt">
      <label>
        Prompt
        <textarea
          rows={4}
          value={form.prompt.value}
          aria-describedby="tokens"
          onInput={(event) => {
            form.prompt.value = event.currentTarget.value;
          }}
        />
      </label>
      <div id="tokens" class="hint">
        {largest !== undefined && (
          <span data-testid="token-count">
            {largest.tokens ?? 0} tokens in {largest.chunks ?? 1} {largest.chunks === 1 ? 'chunk' : 'chunks'} of 75
            {(largest.dropped ?? 0) > 0 && `, ${largest.dropped} cut off`}
          </span>
        )}
        {tokens.value?.problem !== undefined && <span class="error"> Read as plain text: {tokens.value.problem}</span>}
        {problem.value !== '' && <span class="error">{problem.value}</span>}
      </div>
      {weighted.length > 0 && (
        <ul class="weights" aria-label="Weights">
          {weighted.map(({ text, weight = 0 }) => (
            <li key={`${text}${weight}`}>
              {text?.trim()} <strong>{weight.toFixed(2)}</strong>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
