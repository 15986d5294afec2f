import { Command, Option } from 'commander';
import { InferenceError } from '../../errors.js';
import { syntheticModels } from '../../synthetic/models.js';
import { type FloatType, floatTypes } from '../../weights/safetensors.js';
import { unwritable } from '../output/output-path.js';
import { say } from '../output/say.js';

export function createSynthesizeCommand(): Command {
  const names = [...syntheticModels.keys()].join(', ');
  return new Command('synthesize')
    .description('write a model of made-up weights for measurements: its images are noise')
    .argument('<model>', names)
    .argument(
      '<path>',
      'a folder, or for SDXL a file that ends in .safetensors for the original layout; a file for an embedding, a ControlNet or an upscaler',
    )
    .addOption(
      new Option(
        '--dtype <type>',
        'storage type of the weights: F16 for SDXL and what is beside it, BF16 for the others',
      ).choices(floatTypes),
    )
    .action(async (model: string, path: string, { dtype }: { dtype?: FloatType }) => {
      const write = syntheticModels.get(model);
      if (write === undefined) throw new InferenceError('INVALID_REQUEST', `model "${model}" must be one of ${names}`);
      await write(path, dtype).catch((error: unknown) => {
        throw unwritable('path', path, error, 'name another one');
      });
      say(`wrote ${path}`);
    });
}
