import { useSignal } from '@preact/signals';
import { chosenType, form, type ReferenceRole, readReference, takesMask } from '../state/form';
import { NumberField } from './field';

const TITLES: Readonly<Record<ReferenceRole, string>> = {
  single: 'Image to start from',
  start: 'First frame',
  end: 'Last frame',
  mask: 'Mask, white where it is drawn anew',
};

/** Reference images, chosen or dropped: one for an image, a first and a last frame for a video. */
export function ReferenceFields() {
  const isVideo = chosenType()?.makes === 'video';
  const canMask = takesMask() && form.references.value.single !== undefined;
  const roles: readonly ReferenceRole[] = isVideo ? ['start', 'end'] : canMask ? ['single', 'mask'] : ['single'];
  const hasAny = roles.some((role) => form.references.value[role] !== undefined);
  return (
    <fieldset>
      <legend>References</legend>
      <div class="references">
        {roles.map((role) => (
          <ReferenceField key={role} role={role} />
        ))}
      </div>
      {form.note.value !== '' && !hasAny && <p class="banner">{form.note.value}</p>}
      {hasAny && (
        <NumberField
          label="Strength of the reference"
          value={form.strength}
          placeholder="the model's"
          min={0.1}
          max={1}
          step={0.05}
        />
      )}
    </fieldset>
  );
}

function ReferenceField({ role }: { readonly role: ReferenceRole }) {
  const isOver = useSignal(false);
  const problem = useSignal('');
  const chosen = form.references.value[role];
  const set = (reference: typeof chosen) => {
    const { [role]: _, ...others } = form.references.value;
    form.references.value = reference === undefined ? others : { ...others, [role]: reference };
  };
  const take = async (file: File | undefined) => {
    if (file === undefined) return;
    try {
      set(await readReference(file, file.name));
      problem.value = '';
    } catch (caught) {
      problem.value = (caught as Error).message;
    }
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the input inside does the same by keyboard
    <div
      class={isOver.value ? 'drop over' : 'drop'}
      data-testid={`drop-${role}`}
      onDragOver={(event) => {
        event.preventDefault();
        isOver.value = true;
      }}
      onDragLeave={() => {
        isOver.value = false;
      }}
      onDrop={(event) => {
        event.preventDefault();
        isOver.value = false;
        void take(event.dataTransfer?.files[0]);
      }}
    >
      {chosen === undefined ? (
        <label>
          {TITLES[role]}: drop an image here, or choose one
          <input
            type="file"
            accept="image/png,image/jpeg,image/webp"
            onChange={(event) => void take(event.currentTarget.files?.[0])}
          />
        </label>
      ) : (
        <>
          <img class="reference-image" src={chosen.url} alt={`${TITLES[role]}: ${chosen.name}`} />
          <button type="button" onClick={() => set(undefined)}>
            Remove {chosen.name}
          </button>
        </>
      )}
      {problem.value !== '' && (
        <p class="error" role="alert">
          {problem.value}
        </p>
      )}
    </div>
  );
}
