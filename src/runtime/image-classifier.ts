import type { InferenceSession, TensorConstructor } from 'onnxruntime-node';
import { InferenceError } from '../errors.js';
import { sharp } from '../media/sharp.js';
import { importBinding } from './onnxruntime-node.js';

/** How a classifier takes images, and what its outputs are. */
export interface ClassifierForm {
  /** Width and height of its input, in pixels. Images are stretched to it. */
  readonly size: readonly [number, number];
  /** Of each channel, of values 0 to 1: the input is (value - mean) / std. */
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  /** Order of the input's dimensions. */
  readonly layout: 'nchw' | 'nhwc';
  /** What makes scores of the outputs. */
  readonly activation: 'softmax' | 'sigmoid' | 'none';
  /** One for each output. */
  readonly labels: readonly string[];
}

/** An ONNX image classifier of an operator: one float32 input of one image, one output with a number for each label. */
export class ImageClassifier {
  readonly #session: InferenceSession;
  readonly #Tensor: TensorConstructor;
  readonly #form: ClassifierForm;

  private constructor(session: InferenceSession, Tensor: TensorConstructor, form: ClassifierForm) {
    this.#session = session;
    this.#Tensor = Tensor;
    this.#form = form;
  }

  /**
   * Opens the file on the CPU and runs it once.
   * @param threads 0 lets the runtime choose
   * @throws InferenceError MODEL_UNSUPPORTED if the file does not fit the form
   */
  static async open(path: string, form: ClassifierForm, threads: number): Promise<ImageClassifier> {
    try {
      const { InferenceSession, Tensor } = await importBinding();
      const session = await InferenceSession.create(path, {
        executionProviders: ['cpu'],
        logSeverityLevel: 3,
        ...(threads > 0 && { intraOpNumThreads: threads }),
      });
      const classifier = new ImageClassifier(session, Tensor, form);
      await classifier.scores(new Uint8Array(3), { width: 1, height: 1 });
      return classifier;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new InferenceError('MODEL_UNSUPPORTED', `the image classifier ${path} cannot be used: ${why}`, {
        cause: error,
      });
    }
  }

  /**
   * @param rgb row-major uint8 [height, width, 3]
   * @returns one score for each label; may be no number if the classifier's output is none
   */
  async scores(rgb: Uint8Array, { width, height }: { width: number; height: number }): Promise<readonly number[]> {
    const { size, labels, layout, activation } = this.#form;
    const pixels = await sharp(rgb, { raw: { width, height, channels: 3 } })
      .resize(...size, { fit: 'fill', kernel: 'cubic' })
      .raw()
      .toBuffer();
    const [columns, rows] = size;
    const dims = layout === 'nchw' ? [1, 3, rows, columns] : [1, rows, columns, 3];
    const input = new this.#Tensor('float32', this.#normalised(pixels), dims);
    const [name = ''] = this.#session.inputNames;
    const [first = ''] = this.#session.outputNames;
    const output = (await this.#session.run({ [name]: input }, [first]))[first];
    if (output?.type !== 'float32' || output.data.length !== labels.length) {
      throw new Error(`its output is ${output?.type} [${output?.dims}], and ${labels.length} float32 are needed`);
    }
    return activated([...(output.data as Float32Array)], activation);
  }

  #normalised(pixels: Uint8Array): Float32Array {
    const { mean, std, layout } = this.#form;
    const count = pixels.length / 3;
    const values = new Float32Array(pixels.length);
    for (let i = 0; i < pixels.length; i += 1) {
      const channel = i % 3;
      const at = layout === 'nchw' ? channel * count + Math.floor(i / 3) : i;
      values[at] = ((pixels[i] ?? 0) / 255 - (mean[channel] ?? 0)) / (std[channel] ?? 1);
    }
    return values;
  }
}

function activated(outputs: readonly number[], activation: ClassifierForm['activation']): readonly number[] {
  if (activation === 'none') return outputs;
  if (activation === 'sigmoid') return outputs.map((output) => 1 / (1 + Math.exp(-output)));
  const largest = Math.max(...outputs);
  const powers = outputs.map((output) => Math.exp(output - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
