import { z } from 'zod';
import { readOperatorYaml } from '../std/operator-file.js';

/** A page of instructions takes a few kilobytes. */
const MAX_TEMPLATE_BYTES = 64 * 1024;
/** Placeholder of the prompt. */
export const PLACE = '{prompt}';

/** The contract's bound. */
export const MAX_NEW_TOKENS = 512;

const withPlace = z.string().refine((text) => text.split(PLACE).length === 2, `must have ${PLACE} in it, once`);

/** Fields of an operator's file. The built-in template supplies the missing ones. */
const templateSchema = z.strictObject({
  format: z.enum(['auto', 'chat', 'plain']).default('auto'),
  system: z.string().optional(),
  user: withPlace.optional(),
  plain: withPlace.optional(),
  max_tokens: z.int().min(1).max(MAX_NEW_TOKENS).optional(),
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  stop: z.array(z.string().min(1).max(100)).max(16).optional(),
  seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
});

/** The text around a prompt and the sampling settings. */
export interface EnhanceTemplate {
  /**
   * `chat`: system and user turns, for instruct models. `plain`: text to continue, for base models. `auto`: depends on
   * the model.
   */
  readonly format: 'auto' | 'chat' | 'plain';
  readonly system: string;
  /** Contains `{prompt}` once. */
  readonly user: string;
  /** Contains `{prompt}` once. */
  readonly plain: string;
  /** Number of new tokens, 1 to 512. */
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  /** Texts that end the output; they are not part of it. */
  readonly stop: readonly string[];
  /** Omitted: a random seed for each prompt. */
  readonly seed?: number;
}

export const builtInTemplate: EnhanceTemplate = Object.freeze({
  format: 'auto',
  system: [
    'You turn short ideas for pictures and video clips into detailed, cinematic descriptions.',
    'Keep every subject, number, name, colour and action of the idea, and add nothing that contradicts it.',
    'Describe the subject and its surroundings, the light, the camera (angle, distance, lens), the style, and how things move.',
    'Write one paragraph of plain English prose of at most 120 words.',
    'Answer with the description alone: no introduction, no title, no list, no quotation marks.',
  ].join(' '),
  user: PLACE,
  plain: [
    'Each idea for a picture or a video clip is followed by a detailed, cinematic description of it in one paragraph: subject, light, camera, style, motion.',
    '',
    'Idea: a boat on a lake',
    'Description: A small wooden rowing boat drifts on a still mountain lake at first light, thin mist rising around its hull, pine slopes mirrored in the dark water. Soft golden side light, wide shot from a low angle, 35 mm lens, slow push forward, calm naturalistic film look with muted greens and a hint of grain.',
    '',
    `Idea: ${PLACE}`,
    'Description: ',
  ].join('\n'),
  maxTokens: MAX_NEW_TOKENS,
  temperature: 0.7,
  topP: 0.9,
  stop: [],
});

/**
 * Reads an operator's template, a YAML file.
 * @param path omitted: the built-in template
 * @throws InferenceError INVALID_REQUEST that lists every fault of the file
 */
export async function readTemplate(path: string | undefined): Promise<EnhanceTemplate> {
  if (path === undefined) return builtInTemplate;
  const file = await readOperatorYaml(path, templateSchema, {
    variable: 'ENHANCE_TEMPLATE',
    maxBytes: MAX_TEMPLATE_BYTES,
  });
  const { max_tokens: maxTokens, top_p: topP, ...rest } = file;
  const given = Object.fromEntries(
    Object.entries({ ...rest, maxTokens, topP }).filter(([, value]) => value !== undefined),
  );
  return Object.freeze({ ...builtInTemplate, ...given });
}

/** What the language model may read: the template around a prompt, in the formats that the template allows. */
export function filledTexts({ format, system, user, plain }: EnhanceTemplate, prompt: string): readonly string[] {
  const filled = (text: string) => text.replace(PLACE, () => prompt);
  return [...(format === 'plain' ? [] : [`${system}\n${filled(user)}`]), ...(format === 'chat' ? [] : [filled(plain)])];
}
