/** The readers of foreign bytes: what each is given to begin with, and what must hold of whatever it accepts. */
import type { FuzzedParser } from './parsers/parser.js';

/** Names of the readers of each file. A process imports those that it fuzzes, and no others. */
export const places = {
  weights: {
    names: ['safetensors', 'pickle', 'zip', 'gguf', 'gguf-weights'],
    load: () => import('./parsers/weights.js'),
  },
  lora: { names: ['lora'], load: () => import('./parsers/lora.js') },
  'add-ons': {
    names: ['embedding', 'upscaler', 'controlnet', 'ip adapter'],
    load: () => import('./parsers/add-ons.js'),
  },
  tokenizers: {
    names: ['tokenizer-umt5', 'tokenizer-clip', 'sentencepiece'],
    load: () => import('./parsers/tokenizers.js'),
  },
  requests: { names: ['image', 'payload'], load: () => import('./parsers/requests.js') },
};

/** Names of all. */
export const parsers: readonly string[] = Object.values(places).flatMap(({ names }) => names);

/** @throws Error for a name that is none of them */
export async function parserNamed(name: string): Promise<FuzzedParser> {
  const place = Object.values(places).find(({ names }) => names.includes(name));
  const found = (await place?.load())?.parsers.find((parser) => parser.name === name);
  if (found === undefined) throw new Error(`no parser ${name}`);
  return found;
}
