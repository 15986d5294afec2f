import { z } from 'zod';

const size = z
  .string()
  .regex(/^(auto|\d{2,5}x\d{2,5})$/, 'must be WIDTHxHEIGHT in pixels, for example 1024x1024, or auto')
  .default('auto')
  .transform((text) => {
    const [width = 0, height = 0] = text === 'auto' ? [] : text.split('x').map(Number);
    return { width, height };
  });

/** Fields that both methods have. Unknown fields are ignored, as OpenAI's clients send more with every version. */
const common = {
  prompt: z.string({ error: 'is required' }),
  model: z.string().optional(),
  n: z.coerce
    .number()
    .int()
    .min(1, 'must be 1 to 10')
    .max(10, 'must be 1 to 10')
    .nullish()
    .transform((n) => n ?? 1),
  size,
  response_format: z
    .enum(['b64_json', 'url'])
    .nullish()
    .transform((format) => format ?? 'b64_json'),
  output_format: z
    .enum(['png', 'jpeg', 'webp'])
    .nullish()
    .transform((format) => format ?? 'png'),
  output_compression: z.coerce.number().int().min(0).max(100).optional(),
  stream: z
    .union([z.boolean(), z.stringbool()])
    .nullish()
    .transform((stream) => stream ?? false),
  partial_images: z.coerce
    .number()
    .int()
    .min(0)
    .max(3)
    .nullish()
    .transform((n) => n ?? 0),
  /** Extensions of darkroom. */
  seed: z.coerce.number().int().min(0).optional(),
  negative_prompt: z.string().optional(),
  steps: z.coerce.number().int().optional(),
  guidance_scale: z.coerce.number().optional(),
};

export const generationsSchema = z.object(common);

export const editsSchema = z.object({
  ...common,
  /** Extension of darkroom: how strongly the image conditions the result, 0.1 to 1. */
  strength: z.coerce.number().optional(),
});

export type ImagesRequest = z.infer<typeof generationsSchema> & { readonly strength?: number | undefined };
