/** Sizes of a JSON text beyond which it is refused before it is parsed. */
export interface JsonBudget {
  /** Objects and arrays within each other. */
  readonly maxDepth: number;
  /** Values of all objects and arrays together: a parsed value takes up to a hundred times the bytes of its text. */
  readonly maxValues: number;
}

const [QUOTE, COMMA, BACKSLASH, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [
  0x22, 0x2c, 0x5c, 0x5b, 0x5d, 0x7b, 0x7d,
];

/**
 * Parses JSON of a file that may be hostile. The text is counted in one pass over its characters before anything is built.
 * @throws RangeError, one sentence without its subject, for a text over budget; SyntaxError for what is not JSON
 */
export function parseBoundedJson(text: string, { maxDepth, maxValues }: JsonBudget): unknown {
  let depth = 0;
  let values = 1;
  let isString = false;
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    if (isString) {
      if (code === BACKSLASH) i += 1;
      else if (code === QUOTE) isString = false;
    } else if (code === QUOTE) {
      isString = true;
    } else if (code === OPEN_LIST || code === OPEN_OBJECT) {
      depth += 1;
      values += 1;
      if (depth > maxDepth) throw new RangeError(`is nested more than ${maxDepth} deep`);
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) {
      depth -= 1;
    } else if (code === COMMA) {
      values += 1;
    }
    if (values > maxValues) throw new RangeError(`has more than ${maxValues} values`);
  }
  return JSON.parse(text);
}
