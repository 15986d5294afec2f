import { z } from 'zod';
import { InferenceError } from '../errors.js';
import type { Size } from '../media/encode-image.js';
import { ImageClassifier } from '../runtime/image-classifier.js';
import { readOperatorYaml } from '../std/operator-file.js';
import type { ImageCheckSpec } from './messages.js';

const MAX_SETTINGS_BYTES = 1024 * 1024;
/** Retry delay where a check failed, in ms. */
const RETRY_MS = 5000;

const channels = z.tuple([z.number(), z.number(), z.number()]);
const side = z.int().min(1).max(4096);
const settingsSchema = z
  .strictObject({
    size: z.union([side.transform((length): [number, number] => [length, length]), z.tuple([side, side])]),
    mean: channels.default([0, 0, 0]),
    std: channels.refine((values) => values.every((value) => value > 0), 'must be > 0').default([1, 1, 1]),
    layout: z.enum(['nchw', 'nhwc']).default('nchw'),
    activation: z.enum(['softmax', 'sigmoid', 'none']).default('softmax'),
    labels: z
      .array(z.string().regex(/^[\w.-]{1,64}$/, 'must be letters, digits, ".", "_" and "-"'))
      .min(1)
      .max(10_000),
    refuse: z.record(z.string(), z.number()).refine((labels) => Object.keys(labels).length > 0, 'must name a label'),
  })
  .refine(({ labels, refuse }) => Object.keys(refuse).every((label) => labels.includes(label)), {
    path: ['refuse'],
    message: 'must name labels of "labels" only',
  });

/** What a check says of an image. `problem`: it could not be checked, and the operator lets such images pass. */
export type CheckResult =
  | { readonly kind: 'passed' }
  | { readonly kind: 'refused'; readonly label: string }
  | { readonly kind: 'unchecked'; readonly problem: string };

/** An operator's check of decoded images. It can refuse images, and nothing else. */
export class ImageCheck {
  readonly #classifier: ImageClassifier;
  readonly #labels: readonly string[];
  readonly #refuse: Readonly<Record<string, number>>;
  readonly #spec: ImageCheckSpec;

  private constructor(
    classifier: ImageClassifier,
    settings: Pick<z.infer<typeof settingsSchema>, 'labels' | 'refuse'>,
    spec: ImageCheckSpec,
  ) {
    this.#classifier = classifier;
    this.#labels = settings.labels;
    this.#refuse = settings.refuse;
    this.#spec = spec;
  }

  /**
   * Reads the settings beside the classifier (`check.json` beside `check.onnx`) and opens it.
   * @throws InferenceError INVALID_REQUEST that lists the faults of the settings; MODEL_UNSUPPORTED
   */
  static async open(spec: ImageCheckSpec, threads: number): Promise<ImageCheck> {
    const path = spec.path.replace(/\.onnx$/, '.json');
    const settings = await readOperatorYaml(path === spec.path ? `${path}.json` : path, settingsSchema, {
      variable: 'POLICY_IMAGE_MODEL',
      maxBytes: MAX_SETTINGS_BYTES,
    });
    return new ImageCheck(await ImageClassifier.open(spec.path, settings, threads), settings, spec);
  }

  /** True for frames of a video that are checked: the first, the last, and those evenly between them. */
  takesFrame(frame: number, total: number): boolean {
    const count = Math.min(this.#spec.frames, total);
    if (count === 1) return frame === 0;
    const nearest = Math.round((frame * (count - 1)) / (total - 1));
    return Math.round((nearest * (total - 1)) / (count - 1)) === frame;
  }

  /**
   * @param rgb row-major uint8 [height, width, 3]
   * @throws InferenceError POLICY_UNAVAILABLE if the image cannot be checked and the check fails closed
   */
  async check(rgb: Uint8Array, size: Size): Promise<CheckResult> {
    let scores: readonly number[];
    try {
      scores = await this.#classifier.scores(rgb, size);
      if (!scores.every(Number.isFinite)) throw new Error('its scores are no numbers');
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (this.#spec.fail === 'open') return { kind: 'unchecked', problem };
      throw new InferenceError('POLICY_UNAVAILABLE', 'the image could not be checked, so it is not returned', {
        cause: error,
        retryAfterMs: RETRY_MS,
      });
    }
    const label = this.#labels.find((name, i) => (scores[i] ?? 0) >= (this.#refuse[name] ?? Number.POSITIVE_INFINITY));
    return label === undefined ? { kind: 'passed' } : { kind: 'refused', label };
  }
}
