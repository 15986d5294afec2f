import { Command } from 'commander';
import { createConvertCommand } from './models/convert.js';
import { createInspectCommand } from './models/inspect.js';
import { createSynthesizeCommand } from './models/synthesize.js';

export function createModelsCommand(): Command {
  return new Command('models')
    .description('inspect, convert and synthesize checkpoints')
    .addCommand(createInspectCommand())
    .addCommand(createSynthesizeCommand())
    .addCommand(createConvertCommand());
}
