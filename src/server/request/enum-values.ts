import type { Check } from './field-checks.js';

/** Checks that a field has a value that its enum knows: protobuf lets any number through. */
export function checkEnum(
  type: Readonly<Record<string, number>>,
  typeName: string,
  field: string,
  value: number,
  check: Check,
): void {
  check(isEnumValue(type, value), field, `${field} is unknown; use a value of ${typeName}`);
}

export function isEnumValue(type: Readonly<Record<string, number>>, value: number): boolean {
  return Object.values(type).includes(value);
}
