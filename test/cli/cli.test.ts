import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { connect } from '../../src/client/client.js';
import { JobState } from '../../src/gen/darkroom/v1/job.js';
import { contractJobTypes as jobTypes } from '../../src/job-types.js';
import { writeSyntheticSdxl, writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { readGgufHeader } from '../../src/weights/gguf/gguf-header.js';
import { rebuildModel } from '../conformance/golden-folder.js';
import { readScene } from '../semantic/scene.js';
import { darkroom, main } from '../support/command-line.js';
import { publishedRows } from '../support/published-rows.js';
import { isAlive, outcomeOf, quick, slow, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../support/tensor-file.js';

const qwenGoldens = fileURLToPath(new URL('../fixtures/goldens/qwen-tiny', import.meta.url));
const buf = fileURLToPath(new URL('../../node_modules/.bin/buf', import.meta.url));

function spawnServe(
  models: readonly string[] = ['--sdxl', inject('tinySdxl')],
  variables: Record<string, string> = {},
) {
  return spawn(process.execPath, [main, 'serve', '--listen', '127.0.0.1:0', '--device', 'cpu', ...models], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ENGINE_THREADS: '1', ...variables },
  });
}

/** The address of a server, once each of these models is ready. */
async function readyServer({ stdout }: ReturnType<typeof spawnServe>, models = ['sdxl']): Promise<string> {
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const { value: listens } = await lines.next();
  const ready: string[] = [];
  for (const _ of models) ready.push((await lines.next()).value);
  expect(ready.toSorted()).toEqual(models.map((model) => `model ${model} is ready on cpu`).toSorted());
  return String(listens).replace('darkroom listens on ', '');
}

/** A server of one test. */
async function serve(args?: readonly string[], models?: string[]): Promise<{ server: ChildProcess; address: string }> {
  const server = spawnServe(args);
  onTestFinished(() => void server.kill('SIGKILL'));
  return { server, address: await readyServer(server, models) };
}

describe('a server with every kind of model', () => {
  let cache: string;
  let server: ReturnType<typeof spawnServe>;
  let address: string;
  beforeAll(async () => {
    cache = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
    const ink = fileURLToPath(new URL('../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url));
    const models = ['--sdxl', inject('wholeSdxl'), '--wan', inject('tinyWan'), '--qwen', inject('tinyQwen')];
    const variables = { QWEN_CACHE: cache, MEMORY_RESERVE_BYTES: '0' };
    server = spawnServe([...models, '--lora', `ink=${ink}`], variables);
    address = await readyServer(server, ['sdxl', 'wan']);
  });
  afterAll(async () => {
    server.kill('SIGKILL');
    await rm(cache, { recursive: true });
  });

  it('generate: writes the files of a job, and lists bad fields', async () => {
    const out = await tempFolder();
    const args = [
      'generate',
      'a red circle',
      '--server',
      address,
      '--out',
      out,
      '--width',
      '64',
      '--height',
      '72',
      '--steps',
      '2',
      '--seed',
      '5',
      '--num-images',
      '3',
      '--job-id',
      'mine',
    ];
    const { code, stdout } = await darkroom(args);
    expect([code, await readdir(out)]).toEqual([0, ['mine-0.png', 'mine-1.png', 'mine-2.png']]);
    expect(stdout).toContain(`wrote ${join(out, 'mine-2.png')} (64x72, seed 7)`);
    const bad = await darkroom(['generate', 'a red circle', '--server', address, '--width', '1025', '--steps', '0']);
    expect([bad.code, bad.stderr.split('\n')]).toEqual([
      1,
      [
        'darkroom: Invalid parameters:',
        '  width: width 1025 must be a multiple of 8; use 1024 or 1032',
        '  steps: steps 0 must be >= 1 and <= 1000',
        '',
      ],
    ]);
  });

  it('enhance: prints the prompt, and the text as it is written beside it', async () => {
    const args = ['enhance', 'a lighthouse', '--server', address, '--max-tokens', '12', '--seed', '4'];
    const { code, stdout, stderr } = await darkroom([...args, '--watch']);
    expect([code, stdout.trim()]).toEqual([0, expect.stringMatching(/./)]);
    expect(stderr).toContain('model qwen is converted');
    expect(stderr).toMatch(/\d+ tokens from \d+ on cpu in \d+\.\d s after \d+\.\d s, [\d.]+ a second, seed 4\n$/);
    expect(await darkroom([...args, '--watch'])).toMatchObject({ stdout });
    const bad = await darkroom([...args, '--temperature', '3']);
    const problem = 'darkroom: Invalid parameters: temperature 3 must be >= 0 and <= 2\n';
    expect([bad.code, bad.stderr]).toEqual([1, problem]);
  });

  it('generate: takes LoRAs', async () => {
    const args = ['generate', 'a red circle', '--server', address, '--out', await tempFolder(), '--width', '64'];
    const { code, stderr } = await darkroom([...args, '--steps', '2', '--lora', 'ink:0.5']);
    expect([code, stderr]).toEqual([0, expect.stringContaining('model sdxl is built with ink')]);
    const unknown = await darkroom([...args, '--lora', 'inkk']);
    expect(unknown.stderr).toBe('darkroom: LoRA "inkk" is not known; the nearest are ink\n');
  });

  it('generate: tells the enhanced prompt, or why there is none', async () => {
    const enhancedBy = async (server: string) => {
      const size = ['--width', '64', '--height', '64', '--steps', '2', '--seed', '5'];
      const out = ['--server', server, '--out', await tempFolder()];
      return darkroom(['generate', 'a kite over a field', '--job-type', 'image7b_fast_enhanced', ...size, ...out]);
    };
    expect((await enhancedBy(address)).stdout).toMatch(/^enhanced prompt: .+$/m);
    const unable = await serve(['--wan', inject('tinyWan')], ['wan']);
    const { code, stderr } = await enhancedBy(unable.address);
    expect([code, stderr]).toEqual([0, expect.stringContaining('the prompt was not enhanced: this server has no')]);
  });

  it('serve: reflects its API to buf curl', async () => {
    const run = (...args: string[]) =>
      new Promise<string>((resolve, reject) =>
        execFile(buf, ['curl', '--protocol', 'grpc', '--http2-prior-knowledge', ...args], (error, stdout) =>
          error ? reject(error) : resolve(stdout),
        ),
      );
    expect((await run('--list-methods', `http://${address}`)).split('\n')).toEqual(
      expect.arrayContaining([
        'darkroom.v1.InferenceService/Generate',
        'darkroom.v1.JobService/WatchJob',
        'grpc.health.v1.Health/Watch',
      ]),
    );
    const { models } = JSON.parse(await run(`http://${address}/darkroom.v1.ModelService/ListModels`));
    expect(models).toMatchObject([
      { name: 'sdxl', state: 'MODEL_STATE_READY', device: 'cpu', nativeSize: 64 },
      { name: 'wan', state: 'MODEL_STATE_READY', device: 'cpu' },
      { name: 'qwen' },
    ]);
    expect(JSON.parse(await run(`http://${address}/grpc.health.v1.Health/Check`))).toEqual({ status: 'SERVING' });
  });
});

describe('darkroom', () => {
  it('demo: draws what it is asked for, takes ten jobs from a queue to files and callbacks, and shows all on a page', async () => {
    const folder = await tempFolder();
    const { code, stdout } = await darkroom(['demo'], { cwd: folder, env: { XDG_CACHE_HOME: join(folder, 'cache') } });
    expect(code).toBe(0);
    const first = (type: string) => join('out', type, 'demo', `demo-${type.replaceAll('_', '-')}`);
    for (const [type, { makes }] of jobTypes) {
      const file = join(first(type), makes === 'video' ? '0.mp4' : '0.png');
      expect(stdout).toMatch(new RegExp(`^ +processing, completed .* ${file}$`, 'm'));
      expect((await readdir(join(folder, first(type)))).sort()).toEqual(
        makes === 'video'
          ? ['0.mp4', '1.jpg', '2.jpg']
          : type === 'sdxl_image_fast'
            ? ['0.png', '1.png', '2.png']
            : ['0.png'],
      );
    }
    expect(await sharp(join(folder, first('sdxl_image_high'), '0.png')).metadata()).toMatchObject({
      width: 128,
      height: 128,
      format: 'png',
    });
    expect(stdout).toMatch(/a tiny WAN of made-up weights, so its images and videos are noise/);
    const sceneOf = async (file: string) => {
      const image = sharp(join(folder, 'out', 'images', file))
        .removeAlpha()
        .raw();
      return readScene(await image.toBuffer(), 128);
    };
    const circle = { shape: 'circle', background: 'blue' };
    expect(await sceneOf('red-circle-0.png')).toMatchObject({ ...circle, foreground: 'red' });
    expect(await sceneOf('weight-0.3-0.png')).toMatchObject({ ...circle, foreground: 'orange' });
    expect(await sceneOf('from-reference-0.png')).toMatchObject({ ...circle, foreground: 'yellow' });
    expect((await sceneOf('any-colour-0.png')).foreground).toBe('orange');
    expect((await sceneOf('not-orange-0.png')).foreground).not.toBe('orange');

    // The contact sheet shows each file by a path beside it, and nothing from elsewhere.
    const sheet = await readFile(join(folder, 'out', 'index.html'), 'utf8');
    const sources = [...sheet.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, source = '']) => source);
    expect(new Set(sources).size).toBe(9 + 12);
    for (const source of sources) expect((await stat(join(folder, 'out', source))).size, source).toBeGreaterThan(0);
    expect(sheet).not.toMatch(/<script|https?:/);
  });

  it('serve: goes on where nobody reads its output any more', async () => {
    const server = spawnServe();
    onTestFinished(() => void server.kill('SIGKILL'));
    const [line] = (await once(createInterface({ input: server.stdout }), 'line')) as [string];
    server.stdout.destroy();
    // It prints the next line when the model is ready.
    const address = line.replace('darkroom listens on ', '');
    const status = async () => (await darkroom(['status', '--server', address])).stdout;
    await until(async () => server.exitCode !== null || (await status()).includes('ready'));
    expect(server.exitCode).toBeNull();
    server.kill('SIGTERM');
    expect(await once(server, 'exit')).toEqual([0, null]);
  });

  it('generate: says so where there is no server', async () => {
    const { code, stderr } = await darkroom(['generate', 'a red circle', '--server', '127.0.0.1:1']);
    expect([code, stderr.split('\n')[0]]).toEqual([1, expect.stringContaining('no server answers at 127.0.0.1:1')]);
  });

  it.each([
    [['models', 'synthesize', 'lora', 'x'], /^darkroom: model "lora" must be one of sdxl-tiny, .*\n$/],
    [
      ['models', 'synthesize', 'upscaler-tiny', 'src'],
      /^darkroom: .* is a folder; name a file that ends in \.safetensors\n$/,
    ],
    [['generate', 'x', '--control', 'edges'], /^darkroom: --control edges must be NAME=FILE, .*\n$/],
    [
      ['generate', 'x', '--reference', 'no.png'],
      /^darkroom: no\.png cannot be read \(ENOENT\); name an image file or a URL\n$/,
    ],
  ])('%o: says in one sentence what to do', async (args, sentence) => {
    const { code, stderr } = await darkroom(args);
    expect(code).toBe(1);
    expect(stderr).toMatch(sentence);
  });

  it('models inspect: tells what a LoRA is', async () => {
    const path = fileURLToPath(new URL('../fixtures/goldens/sdxl-lora/conv.kohya.safetensors', import.meta.url));
    const { code, stdout } = await darkroom(['models', 'inspect', path]);
    expect([code, stdout.split('\n').slice(0, 2)]).toEqual([
      0,
      [
        `${path} is a LoRA for SDXL, in kohya's names.`,
        expect.stringMatching(/^ {2}rank 4, \d+ weights of the denoiser, \d+ of the text encoders, \d\.\d MB$/),
      ],
    ]);
  });

  it('serve: refuses a template without a place for the prompt', async () => {
    const template = join(await tempFolder(), 'template.yaml');
    await writeFile(template, 'user: Describe it.');
    const env = { ENHANCE_TEMPLATE: template };
    const { code, stderr } = await darkroom(['serve', '--qwen', inject('tinyQwen')], { env });
    expect([code, stderr]).toEqual([
      1,
      `darkroom: ENHANCE_TEMPLATE ${template} has mistakes:\n  - user must have {prompt} in it, once\n`,
    ]);
  });

  it('serve: SIGTERM ends the accepted jobs, then the process, with 0', async () => {
    const { server, address } = await serve();
    const client = connect(address);
    const job = outcomeOf(
      client,
      { ...quick, width: 256, height: 256, steps: 10 },
      { onEvent: ({ event }) => event?.$case === 'started' && server.kill('SIGTERM') },
    );
    expect((await job).files).toHaveLength(1);
    client.close();
    expect(await once(server, 'exit')).toEqual([0, null]);
  });

  it('serve: kill -9 leaves no engine behind', async () => {
    const { server, address } = await serve();
    const client = connect(address);
    const job = outcomeOf(client, { ...slow, jobId: 'job' });
    await until(
      () =>
        new Promise<boolean>((resolve) =>
          client.jobs.getJob({ jobId: 'job' }, (_, response) =>
            resolve(response?.job?.state === JobState.JOB_STATE_RUNNING),
          ),
        ),
    );
    const engines = await new Promise<number[]>((resolve) =>
      execFile('pgrep', ['-P', String(server.pid)], (_, stdout) => resolve(stdout.trim().split('\n').map(Number))),
    );
    server.kill('SIGKILL');
    await job;
    client.close();
    expect(engines).toHaveLength(1);
    await until(() => engines.every((pid) => !isAlive(pid)));
  });

  it('serve: a checkpoint that is not whole is one clear error, and the end', async () => {
    const folder = await writeTinySdxl(join(await tempFolder(), 'sdxl'));
    await rm(join(folder, 'vae'), { recursive: true });
    const { code, stderr } = await darkroom(['serve', '--listen', '127.0.0.1:0', '--sdxl', folder, '--device', 'cpu'], {
      env: { LOG_LEVEL: 'silent' },
    });
    expect([code, stderr]).toEqual([
      1,
      `darkroom: ${join(folder, 'vae', 'config.json')} is missing; a diffusers-layout SDXL folder has it\n`,
    ]);
  });

  it('serve: auto takes what opens; a device that does not open is one sentence with its fix', async () => {
    const env = { LOG_LEVEL: 'silent', VK_DRIVER_FILES: '/nowhere', CUDA_VISIBLE_DEVICES: '' };
    const args = ['serve', '--listen', '127.0.0.1:0', '--sdxl', inject('tinySdxl'), '--device'];
    const { code, stderr } = await darkroom([...args, 'webgpu'], { env });
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(
        /^darkroom: device webgpu does not open: .*; install the GPU driver and what its Vulkan part loads.*, or set DEVICE=cpu\n$/,
      ),
    ]);
    const server = spawn(process.execPath, [main, ...args, 'auto'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, ...env },
    });
    onTestFinished(() => void server.kill('SIGKILL'));
    const lines: string[] = [];
    for await (const line of createInterface({ input: server.stdout })) if (lines.push(line) === 2) break;
    expect(lines[1]).toBe('model sdxl is ready on cpu');
  });

  it('serve: tells every mistake in the configuration at once', async () => {
    const { code, stderr } = await darkroom(['serve'], {
      env: { DEVICE: 'gpu', LIMIT_QUEUE: '0', DARKROOM_LISTEN: 'here' },
    });
    expect(code).toBe(1);
    for (const name of ['DARKROOM_LISTEN "here": must be host:port', 'DEVICE "gpu": ', 'LIMIT_QUEUE "0": '])
      expect(stderr).toContain(name);
  });

  it('serves a single file from its maker to pictures of every kind', async () => {
    const folder = await tempFolder();
    const file = join(folder, 'tiny.safetensors');
    expect((await darkroom(['models', 'synthesize', 'sdxl-tiny', file])).stdout).toBe(`wrote ${file}\n`);
    const inspected = await darkroom(['models', 'inspect', file]);
    expect(inspected.stdout).toContain(`${file} is a whole SDXL checkpoint in the original layout.`);
    const { address } = await serve(['--sdxl', file, '--tokenizer', join(folder, 'tokenizer'), '--ztsnr']);
    const ask = (...args: readonly string[]) => darkroom([...args, '--server', address]);
    const size = ['--width', '64', '--height', '64', '--steps', '6'];
    const out = join(folder, 'out');
    const first = await ask(
      'generate',
      'a kite',
      ...size,
      '--out',
      out,
      '--job-id',
      'a',
      '--weights',
      '(sky:1.3)',
      '--format',
      'webp',
    );
    expect([first.code, first.stdout.split(' (')[0]]).toEqual([0, `wrote ${join(out, 'a-0.webp')}`]);
    const reference = ['--reference', join(out, 'a-0.webp'), '--denoise', '0.5', '--format', 'jpeg'];
    const second = await ask('generate', 'a kite', ...size, '--out', out, '--job-id', 'b', ...reference);
    expect([second.code, await readdir(out)]).toEqual([0, ['a-0.webp', 'b-0.jpg']]);
    const estimated = await ask('estimate', 'a kite', ...size, ...reference);
    expect(estimated.stdout).toMatch(
      /^64x64, 3 steps: \d+\.\d s after 0\.0 s in the queue, \d+.\d GB at most, \d+.\d GB of device memory\n$/,
    );
    const tokens = await ask('tokenize', 'a (red:1.2) kite');
    expect(tokens.stdout).toMatch(/^text_encoder: \d+ tokens in 1 of 75\ntext_encoder_2: /);
    expect(tokens.stdout).toMatch(/ {2}1\.20 +\d+ tokens {2}red\n/);
    const wrong = await ask('generate', 'a kite', '--format', 'gif');
    expect(wrong.stderr).toContain('output format "gif" must be one of png, webp, jpeg');
  });

  it('inspects and serves a single file with no option but its path', async () => {
    const folder = await tempFolder();
    const tiny = await writeSyntheticSdxl(join(folder, 'tiny', 'tiny.safetensors'), 'sdxl-tiny');
    const file = join(folder, 'alone.safetensors');
    await writeTensorFile(file, publishedRows(await readTensorFile(tiny)));
    expect((await darkroom(['models', 'inspect', file])).stdout).toContain(`${file} is a whole SDXL checkpoint`);
    const { address } = await serve(['--sdxl', file]);
    const tokens = await darkroom(['tokenize', 'a (red:1.2) kite', '--server', address]);
    expect(tokens.stdout).toMatch(/^text_encoder: 3 tokens in 1 of 75\ntext_encoder_2: 3 tokens in 1 of 75\n/);
    const size = ['--width', '64', '--height', '64', '--steps', '2'];
    const made = await darkroom(['generate', 'a kite', ...size, '--out', folder, '--job-id', 'a', '--server', address]);
    expect([made.code, made.stdout.split(' (')[0]]).toEqual([0, `wrote ${join(folder, 'a-0.png')}`]);
  });

  it('models synthesize, models inspect: a ControlNet', async () => {
    const path = join(await tempFolder(), 'depth.safetensors');
    await darkroom(['models', 'synthesize', 'sdxl-controlnet-tiny', path]);
    expect((await darkroom(['models', 'inspect', path])).stdout).toBe(
      `${path} is a ControlNet for SDXL, in diffusers' names.\n  3.8 M parameters, 7.6 MB\n`,
    );
  });

  it('models synthesize, models inspect: an IP-Adapter beside its checkpoint', async () => {
    const folder = await tempFolder();
    const [adapter, encoder] = [join(folder, 'adapter.safetensors'), join(folder, 'encoder')];
    await darkroom(['models', 'synthesize', 'sdxl-ip-adapter-tiny', adapter]);
    await darkroom(['models', 'synthesize', 'clip-image-encoder-tiny', encoder]);
    const inspect = ['models', 'inspect', inject('wholeSdxl'), '--ip-adapter', adapter];
    const { stdout } = await darkroom([...inspect, '--ip-adapter-encoder', encoder]);
    expect(stdout).toMatch(
      /image_encoder +31\.8 k parameters[\s\S]*\n {2}references style, character, by ip_adapter\n/,
    );
    expect((await darkroom(inspect)).stderr).toMatch(/--ip-adapter-encoder PATH/);
  });

  it('models synthesize, models inspect: an embedding', async () => {
    const path = join(await tempFolder(), 'ink.safetensors');
    await darkroom(['models', 'synthesize', 'sdxl-embedding', path]);
    expect((await darkroom(['models', 'inspect', path])).stdout).toBe(
      `${path} is an embedding (textual inversion) for SDXL, as clip_l and clip_g.\n  4 vectors of the first text encoder, 4 of the second, 16.5 kB\n`,
    );
  });

  it('models inspect: tells what a checkpoint is', async () => {
    const { code, stdout } = await darkroom(['models', 'inspect', inject('wholeSdxl'), '--json']);
    expect([code, JSON.parse(stdout).info]).toMatchObject([0, { family: 'sdxl', storage: 'F16', nativeWidth: 64 }]);
  });

  it.each([
    ['wan-vace-tiny', 'VACE', 'start, end, look, by vace'],
    ['wan-i2v-tiny', 'image-to-video', 'start, needs start, by image_conditioning'],
  ])('models synthesize, models inspect: %s', async (size, name, references) => {
    const path = join(await tempFolder(), size);
    expect((await darkroom(['models', 'synthesize', size, path])).stdout).toBe(`wrote ${path}\n`);
    const { stdout } = await darkroom(['models', 'inspect', path]);
    expect(stdout).toContain(`${path} is a whole WAN 2.1 ${name} checkpoint in diffusers' layout.\n`);
    expect(stdout).toContain(`  references ${references}\n`);
  });

  it('models convert: makes a GGUF file with progress, and names what cannot be one', async () => {
    const folder = await rebuildModel(qwenGoldens, join(await tempFolder(), 'qwen-tiny'), 'model');
    const out = join(folder, 'out.gguf');
    const made = await darkroom(['models', 'convert', folder, '--type', 'bf16', '--out', out]);
    expect([made.code, made.stdout]).toEqual([0, `wrote ${out} (0.00 GB)\n`]);
    expect(made.stderr).toContain('100%  0.00 of 0.00 GB\n');
    expect((await readGgufHeader(out)).metadata.get('general.file_type')).toBe(32);
    await writeFile(join(folder, 'config.json'), '{"architectures":["LlamaForCausalLM"]}');
    const refused = await darkroom(['models', 'convert', folder, '--out', out]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('config.json is of "LlamaForCausalLM"; only Qwen2ForCausalLM is converted');
  });

  it('doctor: finds at least the CPU, and a fix for what is missing', async () => {
    const { code, stdout } = await darkroom(['doctor', '--json']);
    const findings = JSON.parse(stdout) as { what: string; ok: boolean; fix?: string }[];
    expect(code).toBe(0);
    expect(findings.map(({ what }) => what)).toEqual([
      'node',
      'memory',
      'cpu',
      'webgpu',
      'cuda',
      'tensorrt',
      'ffmpeg',
      'llama',
      'cache',
    ]);
    expect(findings.find(({ what }) => what === 'cpu')?.ok).toBe(true);
    for (const { ok, fix } of findings) expect(ok || fix).toBeTruthy();
    const text = await darkroom(['doctor']);
    expect(text.stdout.endsWith('\n\nnext: npx darkroom demo\n')).toBe(true);
  });
});
