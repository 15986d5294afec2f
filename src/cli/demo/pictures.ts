import { join, relative } from 'node:path';
import { type DarkroomClient, generate } from '../../client/client.js';
import { AssetSaver } from '../../client/save-assets.js';
import { PromptSyntax } from '../../gen/darkroom/v1/job.js';
import { requestFrom } from '../options/generate-options.js';
import type { SheetEntry } from './contact-sheet.js';

/** The size and the sampling that the demo model was made for. */
const DEMO_IMAGE = { width: 128, height: 128, steps: 15, guidance: 4 } as const;
/** Share of the steps that run on the reference. */
const DENOISE = 0.7;

interface DemoPicture {
  readonly id: string;
  readonly group: string;
  readonly prompt: string;
  readonly negativePrompt?: string;
  /** The id of an earlier picture that this one starts from. */
  readonly reference?: string;
}

const RED_CIRCLE = 'a large red circle on a blue background';
const CIRCLE = 'a large circle on a blue background';

const pictures: readonly DemoPicture[] = [
  { id: 'red-circle', group: 'What is asked for', prompt: RED_CIRCLE },
  { id: 'yellow-star', group: 'What is asked for', prompt: 'a yellow star on a purple background' },
  { id: 'purple-cross', group: 'What is asked for', prompt: 'a purple cross on a white background' },
  { id: 'black-heart', group: 'What is asked for', prompt: 'a black heart on a orange background, highly detailed' },
  { id: 'weight-1', group: 'A weighted word: with less red the circle is orange', prompt: RED_CIRCLE },
  {
    id: 'weight-0.3',
    group: 'A weighted word: with less red the circle is orange',
    prompt: 'a large (red:0.3) circle on a blue background',
  },
  { id: 'any-colour', group: 'A negative prompt: any circle, then any but an orange one', prompt: CIRCLE },
  {
    id: 'not-orange',
    group: 'A negative prompt: any circle, then any but an orange one',
    prompt: CIRCLE,
    negativePrompt: 'a large orange circle on a blue background',
  },
  {
    id: 'from-reference',
    group: 'A reference: the first image in another colour',
    prompt: 'a large yellow circle on a blue background',
    reference: 'red-circle',
  },
];

/** Draws the demo's pictures one after the other with an ordinary client, and writes them to `images` in a folder. */
export async function* drawPictures(client: DarkroomClient, folder: string): AsyncGenerator<SheetEntry> {
  const paths = new Map<string, string>();
  for (const picture of pictures) {
    const { id, group, prompt, negativePrompt, reference } = picture;
    const start = paths.get(reference ?? '');
    const request = await requestFrom(prompt, {
      ...DEMO_IMAGE,
      jobId: `demo-${id}`,
      model: 'sdxl',
      syntax: PromptSyntax.PROMPT_SYNTAX_WEIGHTED,
      seed: 7n,
      ...(negativePrompt !== undefined && { negative: negativePrompt }),
      ...(start !== undefined && { reference: start, denoise: DENOISE }),
    });
    const saver = new AssetSaver(join(folder, 'images'), id);
    for await (const { event } of generate(client, request)) {
      if (event?.$case === 'assetChunk') {
        const saved = await saver.add(event.value);
        if (saved !== undefined) paths.set(id, saved.path);
      } else if (event?.$case === 'completed' && event.value.metadata !== undefined) {
        const { width, height, seed, steps, guidanceScale, scheduler, generationSeconds } = event.value.metadata;
        yield {
          group,
          prompt,
          file: relative(folder, paths.get(id) ?? '').replaceAll('\\', '/'),
          seconds: generationSeconds,
          parameters: [
            ...(negativePrompt === undefined ? [] : [['negative prompt', negativePrompt] as const]),
            ...(reference === undefined ? [] : [['from', `${reference}, denoise ${DENOISE}`] as const]),
            ['size', `${width}x${height}`],
            ['seed', Number(seed)],
            ['steps', steps],
            ['guidance', guidanceScale],
            ['scheduler', scheduler],
          ],
        };
      }
    }
  }
}
