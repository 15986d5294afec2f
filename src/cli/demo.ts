import { writeFile } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { connect } from '../client/client.js';
import { readBridgeConfig } from '../config/bridge-config.js';
import { readConfig } from '../config/server-config.js';
import { readWebConfig } from '../config/web-config.js';
import { createEngines } from '../engine/create-engines.js';
import { cacheFolder } from '../environment.js';
import { createLog, type Logger } from '../log.js';
import { findFfmpeg } from '../media/ffmpeg.js';
import type { CallbackBody } from '../queue-bridge/callback/callback-body.js';
import { isIdle, runBridge } from '../queue-bridge/run-bridge.js';
import { createServer } from '../server/server.js';
import { findAsset } from '../synthetic/assets.js';
import { writeSyntheticWan } from '../synthetic/wan.js';
import { contactSheet, type SheetEntry } from './demo/contact-sheet.js';
import { type DemoJob, demoJobs } from './demo/jobs.js';
import { drawPictures } from './demo/pictures.js';
import { type DemoReceiver, startDemoReceiver } from './demo/receiver.js';
import { prepareFolder } from './output/output-path.js';
import { say } from './output/say.js';
import { openPage } from './web/open-page.js';

const OUT = 'out';
const SHEET = join(OUT, 'index.html');
const REMARK =
  'SDXL is a small trained model that knows coloured shapes. WAN has made-up weights: what it makes is noise.';

export function createDemoCommand(): Command {
  return new Command('demo')
    .description(
      'images from a small trained SDXL, and ten jobs, one of each type, from a queue to files and callbacks; nothing is downloaded',
    )
    .option('--page', 'serve the page of the demo at the end, until Ctrl+C (WEB_LISTEN)')
    .action(demo);
}

async function demo({ page: withPage }: { readonly page?: boolean }): Promise<void> {
  await prepareFolder('the folder', OUT, 'run the demo in another folder');
  const cache = cacheFolder();
  const sdxl = await findAsset('demo-sdxl');
  const wan = await writeSyntheticWan(join(cache, 'tiny-wan'), 'wan-tiny');
  say(`1. a small SDXL that draws coloured shapes: ${sdxl}`);
  say(`   and a tiny WAN of made-up weights, so its images and videos are noise: ${wan}`);

  const settings = { DARKROOM_LISTEN: '127.0.0.1:0', DEVICE: 'cpu', LOG_LEVEL: 'warn' };
  const config = readConfig({}, { ...settings, SDXL_PATH: sdxl, WAN_PATH: wan });
  const log = createLog(config.LOG_LEVEL);
  const engines = createEngines({ config, log });
  const server = await createServer({ config, log, engines });
  const receiver = await startDemoReceiver();
  const bridgeConfig = readBridgeConfig(
    {},
    {
      DARKROOM_SERVER: `127.0.0.1:${server.port}`,
      CALLBACK_URL: receiver.url,
      STORAGE: 'local',
      STORAGE_FOLDER: OUT,
      BRIDGE_METRICS_LISTEN: 'off',
    },
  );
  const bridge = await runBridge({ config: bridgeConfig, log });
  try {
    await Promise.all(engines.map((engine) => engine.start()));
    const processes = engines.map(({ pid }) => pid).join(' and ');
    say(`2. a server on 127.0.0.1:${server.port}, its engines in processes ${processes}`);
    say('3. a queue in memory, a bridge that takes jobs from it to the server, and a receiver of callbacks');
    const ffmpeg = await findFfmpeg(config.FFMPEG_PATH);
    const jobs = demoJobs.filter(({ type }) => ffmpeg.found || !type.startsWith('video'));
    say(
      `4. ${jobs.length} jobs, one of each type${ffmpeg.found ? '' : ` except videos: ${ffmpeg.detail}; ${ffmpeg.fix}`}`,
    );
    for (const job of jobs) {
      await bridge.queue.push(bridgeConfig.lanes[0].queue, JSON.stringify(job));
    }
    while (!(await isIdle(bridge))) await new Promise((resolve) => setTimeout(resolve, 50));
    say('5. what became of them:');
    say('');
    row('callbacks', 'prompt', 'made', 'files');
    for (const { id } of jobs) showJob(id, receiver);
    say('');
    say(`6. images asked for over the API, without the queue, in ${join(OUT, 'images')}:`);
    const entries = await drawWithClient(`127.0.0.1:${server.port}`);
    entries.push(...jobs.flatMap((job) => entriesOf(job, receiver)));
    await writeFile(SHEET, contactSheet('darkroom demo', REMARK, entries));
    if (withPage) await showPage(server.port, log);
  } finally {
    await bridge.stop();
    receiver.close();
    await server.close();
    await Promise.all(engines.map((engine) => engine.stop()));
  }
  say('');
  say('fallback: there is no language model here, so the four enhanced types ran on the prompt as it was sent.');
  say('');
  say(`All files with their prompts: ${pathToFileURL(resolve(SHEET)).href}`);
  say('');
  say('The page, where you draw with this model yourself: npx darkroom demo --page');
  say('');
  say("Next, with a real checkpoint (a single .safetensors file, or a folder in diffusers' layout):");
  say('  npx darkroom models inspect PATH/TO/sdxl');
  say('  npx darkroom serve --sdxl PATH/TO/sdxl --web          # and the page, at http://127.0.0.1:8080');
  say('  npx darkroom generate "a lighthouse on a cliff at dawn" --job-type sdxl_image_fast');
  say('and with WAN and a Qwen that enhances prompts:');
  say('  npm run setup:llama && npx darkroom serve --wan PATH/TO/wan --qwen PATH/TO/qwen');
}

/** Serves the page until Ctrl+C. Its gallery has what the demo made. */
async function showPage(port: number, log: Logger): Promise<void> {
  const page = await openPage({ config: readWebConfig(), log, client: connect(`127.0.0.1:${port}`) });
  say('Ctrl+C ends it.');
  await new Promise<void>((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
  await page.close();
}

/** Draws with an ordinary client of the server, and prints each prompt. */
async function drawWithClient(address: string): Promise<SheetEntry[]> {
  const client = connect(address);
  const entries: SheetEntry[] = [];
  try {
    for await (const entry of drawPictures(client, OUT)) {
      entries.push(entry);
      say(`   ${entry.prompt}`);
    }
  } finally {
    client.close();
  }
  return entries;
}

/** The files of a job from the queue, for the contact sheet. */
function entriesOf({ id, type, prompt }: DemoJob, receiver: DemoReceiver): readonly SheetEntry[] {
  const last = receiver.of(id).at(-1);
  if (last?.status !== 'completed') return [];
  const { metadata, assets } = last;
  const names = ['frames', 'seed', 'steps', 'guidance_scale', 'scheduler'] as const;
  const known = names.filter((name) => metadata[name] !== null);
  return assets.map((url) => ({
    group: `From the queue: ${type}`,
    file: relative(OUT, fileURLToPath(url)).replaceAll('\\', '/'),
    prompt,
    parameters: [
      ['size', `${metadata.width}x${metadata.height}`],
      ...known.map((name) => [name.replaceAll('_', ' ').replace(' scale', ''), String(metadata[name])] as const),
    ],
    seconds: Number(metadata.generation_time),
  }));
}

/** Prints a job's callbacks as table rows: the first file beside them, further files below. */
function showJob(id: string, receiver: DemoReceiver): void {
  const callbacks = receiver.of(id);
  const last = callbacks.at(-1);
  if (last === undefined) {
    row('none', '', '', id);
    return;
  }
  const { status, metadata } = last;
  const [first = last.error_message ?? '', ...others] = last.assets.map((url) => relative('.', fileURLToPath(url)));
  const enhanced = String(metadata.enhancement_strategy ?? '');
  const made = status === 'completed' ? sizeOf(metadata) : '';
  row(callbacks.map((callback) => callback.status).join(', '), enhanced, made, first);
  for (const path of others) row('', '', '', path);
}

function sizeOf({ width, height, frames, generation_time }: CallbackBody['metadata']): string {
  const video = typeof frames === 'number' && frames > 1 ? `, ${frames} frames` : '';
  return `${width}x${height}${video}, ${Number(generation_time).toFixed(1)} s`;
}

function row(callbacks: string, enhanced: string, made = '', path = ''): void {
  say(`   ${callbacks.padEnd(22)} ${enhanced.padEnd(9)} ${made.padEnd(26)} ${path}`);
}
