import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { connect } from '../client/client.js';
import { readConfig } from '../config.js';
import { JobType } from '../gen/darkroom/v1/job.js';
import { createLog } from '../log.js';
import { findFfmpeg } from '../media/ffmpeg.js';
import { createServer } from '../server/server.js';
import { writeTinySdxl } from '../synthetic/sdxl.js';
import { writeSyntheticWan } from '../synthetic/wan.js';
import { createEngines } from './engines.js';
import { generateFiles } from './generate.js';

const PROMPT = 'a lighthouse on a cliff at dawn, golden hour';
const CLIP_PROMPT = 'a kite over a field, slow pan';
const OUT = 'out';

export function createDemoCommand(): Command {
  return new Command('demo')
    .description('make a tiny SDXL and a tiny WAN, serve them, and generate pictures and a clip; nothing is downloaded')
    .action(demo);
}

async function demo(): Promise<void> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'darkroom');
  const say = (line: string) => process.stdout.write(`${line}\n`);
  const sdxl = await writeTinySdxl(join(cache, 'tiny-sdxl'));
  const wan = await writeSyntheticWan(join(cache, 'tiny-wan'), 'wan-tiny');
  say(`1. a tiny SDXL and a tiny WAN with made-up weights, so what they make is noise: ${sdxl}, ${wan}`);

  const settings = { DARKROOM_LISTEN: '127.0.0.1:0', DEVICE: 'cpu', LOG_LEVEL: 'warn' };
  const config = readConfig({}, { ...settings, SDXL_PATH: sdxl, WAN_PATH: wan });
  const log = createLog(config.LOG_LEVEL);
  const engines = createEngines(config, log);
  const server = await createServer({ config, log, engines });
  const client = connect(`127.0.0.1:${server.port}`);
  try {
    await Promise.all(engines.map((engine) => engine.start()));
    say(
      `2. a server on 127.0.0.1:${server.port}, its engines in processes ${engines.map(({ pid }) => pid).join(' and ')}`,
    );
    say(`3. three pictures over gRPC: "${PROMPT}"`);
    const request = { jobId: 'demo', prompt: PROMPT, numImages: 3, seed: 7n, width: 512, height: 512, steps: 15 };
    const never = new AbortController().signal;
    await generateFiles(client, request, OUT, never);
    const ffmpeg = await findFfmpeg(config.FFMPEG_PATH);
    if (ffmpeg.found) {
      say(`4. a clip of 33 frames: "${CLIP_PROMPT}"`);
      const clip = { jobId: 'demo-clip', prompt: CLIP_PROMPT, jobType: JobType.JOB_TYPE_VIDEO_FAST, seed: 7n };
      await generateFiles(client, { ...clip, width: 128, height: 96, frames: 33 }, OUT, never);
    } else {
      say(`4. no clip: ${ffmpeg.detail}; ${ffmpeg.fix}`);
    }
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
