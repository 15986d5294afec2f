import { expect, it } from 'vitest';
import { counted } from '../../src/std/counted.js';

it.each([
  [0, '0 jobs'],
  [1, '1 job'],
  [2, '2 jobs'],
])('counts %i as "%s"', (count, text) => {
  expect(counted(count, 'job')).toBe(text);
});
