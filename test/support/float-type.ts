import { type FloatType, floatTypes } from '../../src/weights/safetensors.js';

export function assertFloatType(type: string): FloatType {
  const known = floatTypes.find((name) => name === type);
  if (known === undefined) throw new Error(`type ${type} must be one of ${floatTypes.join(', ')}`);
  return known;
}
