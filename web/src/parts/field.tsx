import type { Signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';

interface NumberFieldProps {
  readonly label: string;
  readonly value: Signal<string>;
  readonly placeholder?: string | number | undefined;
  readonly min?: number;
  readonly max?: number;
  readonly step?: number | undefined;
}

/** A number that may be left empty: the placeholder shows what is then used. */
export function NumberField({ label, value, placeholder, min = 0, max, step = 1 }: NumberFieldProps) {
  return (
    <label>
      {label}
      <input
        type="number"
        inputMode="decimal"
        value={value.value}
        placeholder={placeholder === undefined ? '' : String(placeholder)}
        min={min}
        max={max}
        step={step}
        onInput={(event) => {
          value.value = event.currentTarget.value;
        }}
      />
    </label>
  );
}

interface SelectFieldProps {
  readonly label: string;
  readonly value: Signal<string>;
  readonly children: ComponentChildren;
}

export function SelectField({ label, value, children }: SelectFieldProps) {
  return (
    <label>
      {label}
      <select
        value={value.value}
        onChange={(event) => {
          value.value = event.currentTarget.value;
        }}
      >
        {children}
      </select>
    </label>
  );
}
