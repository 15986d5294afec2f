import { chosenModel, form } from '../state/form';

const MAX_LORAS = 4;

/** LoRAs of the chosen model, with their weights and the tags that they were trained on. */
export function LoraFields() {
  const usable = chosenModel()?.loras?.filter(({ problem }) => problem === undefined) ?? [];
  const chosen = form.loras.value;
  if (usable.length === 0) return null;
  const toggle = (name: string, isOn: boolean) => {
    const others = chosen.filter((lora) => lora.name !== name);
    form.loras.value = isOn ? [...others, { name, weight: 1 }] : others;
  };
  const weigh = (name: string, weight: number) => {
    form.loras.value = chosen.map((lora) => (lora.name === name ? { name, weight } : lora));
  };
  const addTag = (tag: string) => {
    const { prompt } = form;
    prompt.value = prompt.value.trim() === '' ? tag : `${prompt.value.trimEnd()}, ${tag}`;
  };
  return (
    <fieldset>
      <legend>LoRAs, at most {MAX_LORAS}</legend>
      {usable.map(({ name, trainedTags = [] }) => {
        const own = chosen.find((lora) => lora.name === name);
        return (
          <div key={name} class="lora">
            <label class="check">
              <input
                type="checkbox"
                checked={own !== undefined}
                disabled={own === undefined && chosen.length >= MAX_LORAS}
                onChange={(event) => toggle(name, event.currentTarget.checked)}
              />
              {name}
            </label>
            {own !== undefined && (
              <label class="inline">
                Weight of {name}
                <input
                  type="number"
                  min={-2}
                  max={2}
                  step={0.05}
                  value={own.weight}
                  onChange={(event) => weigh(name, Number(event.currentTarget.value))}
                />
              </label>
            )}
            {own !== undefined && trainedTags.length > 0 && (
              <ul class="tags" aria-label={`Trained tags of ${name}`}>
                {trainedTags.map((tag) => (
                  <li key={tag}>
                    <button type="button" onClick={() => addTag(tag)}>
                      {tag}
                    </button>
                  </li>
                ))}
              </ul>
            )}
          </div>
        );
      })}
    </fieldset>
  );
}
