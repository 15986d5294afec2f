const QUALITY = 'blurry, low quality, deformed, watermark, text';
const PEOPLE = 'extra limbs, fused bodies, duplicate people, bad anatomy';
/** Words for more than one person. */
const SEVERAL =
  /\b(people|persons|couples?|groups?|crowds?|famil(y|ies)|friends|men|women|children|kids|boys|girls|both|together|(two|three|four|five|several|many) \w+)\b/i;

/** SDXL's default negative prompt: a short quality list, longer where the prompt has more than one person. */
export function sdxlNegativePrompt(prompt: string): string {
  return SEVERAL.test(prompt) ? `${QUALITY}, ${PEOPLE}` : QUALITY;
}
