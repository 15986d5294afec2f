#!/usr/bin/env node
import { Command } from 'commander';
import { InferenceError } from '../errors.js';
import { version } from '../version.js';

interface LazyCommand {
  readonly summary: string;
  load(): Promise<Command>;
}

/** Commands are imported when they are called, so that none fails because of a module that only another one needs. */
const commands: Readonly<Record<string, LazyCommand>> = {
  serve: {
    summary: 'serve models over gRPC until SIGTERM',
    load: async () => (await import('./serve.js')).createServeCommand(),
  },
  bridge: {
    summary: 'take jobs from Redis to servers until SIGTERM',
    load: async () => (await import('./bridge.js')).createBridgeCommand(),
  },
  jobs: {
    summary: 'list, cancel and replay the jobs of the bridge',
    load: async () => (await import('./jobs.js')).createJobsCommand(),
  },
  tokens: {
    summary: 'add, list and revoke the tokens of a server',
    load: async () => (await import('./tokens.js')).createTokensCommand(),
  },
  status: {
    summary: 'show the state of a server, its queue and its models',
    load: async () => (await import('./status.js')).createStatusCommand(),
  },
  web: {
    summary: 'serve a page and an HTTP API for a server until SIGTERM',
    load: async () => (await import('./web.js')).createWebCommand(),
  },
  generate: {
    summary: 'generate images or a video on a server',
    load: async () => (await import('./generate.js')).createGenerateCommand(),
  },
  enhance: {
    summary: 'rewrite a prompt with the language model of a server',
    load: async () => (await import('./enhance.js')).createEnhanceCommand(),
  },
  estimate: {
    summary: 'estimate time and memory of a job without running it',
    load: async () => (await import('./estimate.js')).createEstimateCommand(),
  },
  tokenize: {
    summary: 'count the tokens of a prompt and show its weights',
    load: async () => (await import('./tokenize.js')).createTokenizeCommand(),
  },
  models: {
    summary: 'inspect, convert and synthesize checkpoints',
    load: async () => (await import('./models.js')).createModelsCommand(),
  },
  doctor: {
    summary: 'check what works on this machine, and how to fix the rest',
    load: async () => (await import('./doctor.js')).createDoctorCommand(),
  },
  demo: {
    summary: 'draw with a small SDXL that comes with darkroom, run ten jobs from a queue, and write a page of it all',
    load: async () => (await import('./demo.js')).createDemoCommand(),
  },
};

// What reads the output may have read enough of it, as head does, or be gone. A server goes on, and a command does what is left.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

// Node warns that a server name of TLS is an IP address. gRPC sets such a name for a server that is addressed by IP, and nobody who runs a
// command can change that.
const { emitWarning } = process;
process.emitWarning = ((...args: Parameters<typeof emitWarning>) => {
  if (!(args as readonly unknown[]).includes('DEP0123')) emitWarning.apply(process, args);
}) as typeof emitWarning;

try {
  const program = new Command('darkroom')
    .description('SDXL images and WAN videos over gRPC, from the checkpoints you have')
    .version(version);
  const [first, second] = process.argv.slice(2);
  const called = first === 'help' ? second : first;
  for (const [name, { summary, load }] of Object.entries(commands)) {
    program.addCommand((name === called ? await load() : new Command(name)).summary(summary));
  }
  await program.parseAsync();
} catch (caught) {
  // Print one clear sentence; a stack only for unforeseen errors.
  const error = InferenceError.from(caught);
  const { violations, cause } = error;
  // The message of a single violation says it all. That of several is their list, which has a line for each here.
  const text = violations.length > 1 ? 'Invalid parameters:' : error.message;
  process.stderr.write(`darkroom: ${text}\n`);
  if (violations.length > 1)
    for (const { field, description } of violations) process.stderr.write(`  ${field}: ${description}\n`);
  // The sentence of a system error names the call and the path.
  const isOfSystem = cause instanceof Error && 'syscall' in cause;
  if (error.reason === 'INTERNAL' && cause instanceof Error && !isOfSystem) process.stderr.write(`${cause.stack}\n`);
  process.exit(1);
}
