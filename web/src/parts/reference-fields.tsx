import { useSignal } from '@preact/signals';
import {
  acceptedTypes,
  chosenType,
  form,
  type ReferenceRole,
  readReference,
  takesControlVideo,
  takesMask,
  videoRoles,
} from '../state/form';
import { NumberField } from './field';

const TITLES: Readonly<Record<ReferenceRole, string>> = {
  single: 'Image to start from',
  start: 'First frame',
  end: 'Last frame',
  look: 'Look, an image that the video resembles',
  mask: 'Mask, white where it is drawn anew',
  control: 'Control video, which the video follows',
};

/** References, chosen or dropped: one for an image; for a video those that its model takes, and a video that it follows. */
export function ReferenceFields() {
  const isVideo = chosenType()?.makes === 'video';
  const canMask = takesMask() && form.references.value.single !== undefined;
  const roles: readonly ReferenceRole[] = isVideo
    ? [...videoRoles(), ...(takesControlVideo() ? (['control'] as const) : [])]
    : canMask
      ? ['single', 'mask']
      : ['single'];
  const hasAny = roles.some((role) => role !== 'control' && form.references.value[role] !== undefined);
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
      set(await readReference(file, file.name, role));
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
          {TITLES[role]}: drop {role === 'control' ? 'a video' : 'an image'} here, or choose one
          <input
            type="file"
            accept={acceptedTypes(role).join(',')}
            onChange={(event) => void take(event.currentTarget.files?.[0])}
          />
        </label>
      ) : (
        <>
          {chosen.type.startsWith('video/') ? (
            <video class="reference-image" src={chosen.url} muted loop autoplay aria-label={TITLES[role]} />
          ) : (
            <img class="reference-image" src={chosen.url} alt={`${TITLES[role]}: ${chosen.name}`} />
          )}
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
