#!/usr/bin/env node
import { Command } from 'commander';
import { InferenceError } from '../errors.js';
import { version } from '../version.js';
import { createDemoCommand } from './demo.js';
import { createDoctorCommand } from './doctor.js';
import { createEnhanceCommand } from './enhance.js';
import { createEstimateCommand } from './estimate.js';
import { createGenerateCommand } from './generate.js';
import { createModelsCommand } from './models.js';
import { createServeCommand } from './serve.js';
import { createTokenizeCommand } from './tokenize.js';

const program = new Command('darkroom')
  .description('SDXL pictures and WAN 2.1 clips over gRPC, from the checkpoints you have')
  .version(version)
  .addCommand(createServeCommand())
  .addCommand(createGenerateCommand())
  .addCommand(createEnhanceCommand())
  .addCommand(createEstimateCommand())
  .addCommand(createTokenizeCommand())
  .addCommand(createModelsCommand())
  .addCommand(createDoctorCommand())
  .addCommand(createDemoCommand());

try {
  await program.parseAsync();
} catch (caught) {
  // One clear sentence; a stack is for what nobody foresaw.
  const error = InferenceError.from(caught);
  process.stderr.write(`darkroom: ${error.message}\n`);
  for (const { field, description } of error.violations) process.stderr.write(`  ${field}: ${description}\n`);
  if (error.reason === 'INTERNAL' && error.cause instanceof Error) process.stderr.write(`${error.cause.stack}\n`);
  process.exit(1);
}
