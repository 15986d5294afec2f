import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { connect } from '../client/client.js';
import { readConfig } from '../config.js';
import { createLog } from '../log.js';
import { createServer } from '../server/server.js';
import { writeTinySdxl } from '../synthetic/sdxl.js';
import { createEngines } from './engines.js';
import { generateFiles } from './generate.js';

const PROMPT = 'a lighthouse on a cliff at dawn, golden hour';
const OUT = 'out';

export function createDemoCommand(): Command {
  return new Command('demo')
    .description('make a tiny SDXL, serve it, and generate three pictures with it; nothing is downloaded')
    .action(demo);
}

async function demo(): Promise<void> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'darkroom');
  const say = (line: string) => process.stdout.write(`${line}\n`);
  const model = await writeTinySdxl(join(cache, 'tiny-sdxl'));
  say(`1. a tiny SDXL with made-up weights, so its pictures are noise: ${model}`);

  const config = readConfig({}, { DARKROOM_LISTEN: '127.0.0.1:0', SDXL_PATH: model, DEVICE: 'cpu', LOG_LEVEL: 'warn' });
  const log = createLog(config.LOG_LEVEL);
  const engines = createEngines(config, log);
  const server = await createServer({ config, log, engines });
  const client = connect(`127.0.0.1:${server.port}`);
  try {
    await Promise.all(engines.map((engine) => engine.start()));
    say(`2. a server on 127.0.0.1:${server.port}, its engine in process ${engines[0]?.pid}`);
    say(`3. three pictures over gRPC: "${PROMPT}"`);
    const request = { jobId: 'demo', prompt: PROMPT, numImages: 3, seed: 7n, width: 512, height: 512, steps: 15 };
    await generateFiles(client, request, OUT, new AbortController().signal);
  } finally {
    client.close();
    await server.close();
    await Promise.all(engines.map((engine) => engine.stop()));
  }
  say('');
  say('Next, with a real checkpoint (a diffusers-layout SDXL folder):');
  say('  npm run darkroom -- models inspect PATH/TO/sdxl');
  say('  npm run darkroom -- serve --sdxl PATH/TO/sdxl');
  say('  npm run darkroom -- generate "a lighthouse on a cliff at dawn" --job-type sdxl_image_fast');
}
