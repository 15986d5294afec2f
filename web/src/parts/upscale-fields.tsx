import { chosenModel, form, takesUpscale } from '../state/form';
import { NumberField, SelectField } from './field';

const FACTORS = ['1.5', '2', '3', '4'];

/** Enlarges the result, and draws it again at its new size. */
export function UpscaleFields() {
  if (!takesUpscale()) return null;
  const { enlarge, upscaler, redraw } = form;
  const files = chosenModel()?.upscalers?.filter(({ problem }) => problem === undefined) ?? [];
  // A job that is filled in again may have another factor.
  const factors = enlarge.value === '' || FACTORS.includes(enlarge.value) ? FACTORS : [...FACTORS, enlarge.value];
  return (
    <div class="row">
      <SelectField label="Enlarge" value={enlarge}>
        <option value="">no</option>
        {factors.map((factor) => (
          <option key={factor} value={factor}>
            {factor} times
          </option>
        ))}
      </SelectField>
      {enlarge.value !== '' && (
        <>
          <SelectField label="Enlarge with" value={upscaler}>
            <option value="">Lanczos</option>
            <option value="latent">latent</option>
            {files.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </SelectField>
          <NumberField
            label="Draw again"
            value={redraw}
            placeholder={upscaler.value === 'latent' ? 0.6 : 0}
            max={1}
            step={0.05}
          />
        </>
      )}
    </div>
  );
}
