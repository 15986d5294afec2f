const OPEN = '<lora:';
/** Parts of a sign after its name: two weights, and a few named ones. */
const MAX_PARTS = 6;

/** A LoRA that a text names. */
export interface LoraSign {
  readonly name: string;
  /** The parts after the name, as they stand there: weights, or `name=value`. */
  readonly parts: readonly string[];
}

/**
 * Takes the LoRA signs out of a text: `<lora:name>`, `<lora:name:weight>`, `<lora:name:text encoder weight:weight>`, and
 * `<lora:name:te=0.5:unet=1>`, as A1111 writes them. Blanks before a sign go with it; of the commas at its two sides one stays. Linear in the length of the text.
 * https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/v1.10.1/extensions-builtin/Lora/extra_networks_lora.py
 */
export function takeLoraSigns(text: string): { readonly text: string; readonly signs: readonly LoraSign[] } {
  const signs: LoraSign[] = [];
  const kept: string[] = [];
  let at = 0;
  for (let open = text.indexOf(OPEN); open >= 0; ) {
    const close = endOfSign(text, open + OPEN.length);
    const [name = '', ...parts] = close === undefined ? [] : text.slice(open + OPEN.length, close).split(':');
    if (close === undefined || name === '' || parts.length > MAX_PARTS) {
      open = text.indexOf(OPEN, open + OPEN.length);
      continue;
    }
    signs.push({ name: name.trim(), parts });
    const before = withoutTail(text, at, open);
    kept.push(text.slice(at, before.end));
    const after = commaAfter(text, close + 1);
    // The comma between the sign and its neighbours stays between the neighbours.
    if (before.comma !== '') kept.push(before.comma);
    else if (after > close + 1) kept.push(text.slice(close + 1, after));
    at = after;
    open = text.indexOf(OPEN, at);
  }
  if (signs.length === 0) return { text, signs };
  kept.push(text.slice(at));
  return { text: trimCommas(kept.join('')), signs };
}

/** Index of the `>` that closes a sign; undefined where another `<` or the end of the text comes first. */
function endOfSign(text: string, from: number): number | undefined {
  for (let i = from; i < text.length; i += 1) {
    const sign = text[i];
    if (sign === '>') return i;
    if (sign === '<') return undefined;
  }
  return undefined;
}

/** The end of the text before a sign, without its blanks and one comma; `comma`: that comma with the blanks before it. */
function withoutTail(text: string, from: number, to: number): { readonly end: number; readonly comma: string } {
  const comma = skipBlanksBack(text, from, to);
  if (comma === from || text[comma - 1] !== ',') return { end: comma, comma: '' };
  const end = skipBlanksBack(text, from, comma - 1);
  return { end, comma: text.slice(end, comma) };
}

function skipBlanksBack(text: string, from: number, to: number): number {
  let end = to;
  while (end > from && isBlank(text[end - 1])) end -= 1;
  return end;
}

/** The index after a comma behind a sign and the blanks before it; `from` where there is none. */
function commaAfter(text: string, from: number): number {
  let i = from;
  while (i < text.length && isBlank(text[i])) i += 1;
  return text[i] === ',' ? i + 1 : from;
}

function trimCommas(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && (text[start] === ',' || isBlank(text[start]))) start += 1;
  while (end > start && (text[end - 1] === ',' || isBlank(text[end - 1]))) end -= 1;
  return text.slice(start, end);
}

function isBlank(character: string | undefined): boolean {
  return character !== undefined && character.trim() === '';
}
