import { copyFile, cp, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { getJob } from '../../src/client/client.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { darkroom } from '../support/command-line.js';
import { serve } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { TRANSFORMER } from '../support/tiny-wan.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The build beside packages of which onnxruntime's does not load, as where a shared library is missing. */
async function installationWithoutOnnxruntime(): Promise<string> {
  const folder = await tempFolder();
  await cp(join(root, 'dist/src'), join(folder, 'dist/src'), { recursive: true });
  await writeFile(join(folder, 'package.json'), '{"type": "module"}');
  const modules = join(folder, 'node_modules');
  await mkdir(modules);
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name === 'onnxruntime-node' || name.startsWith('.')) continue;
    await symlink(join(root, 'node_modules', name), join(modules, name));
  }
  const [own, real] = [join(modules, 'onnxruntime-node'), join(root, 'node_modules/onnxruntime-node')];
  for (const part of ['package.json', 'dist']) await cp(join(real, part), join(own, part), { recursive: true });
  const addon = join('bin/napi-v6', process.platform, process.arch);
  await mkdir(join(own, addon), { recursive: true });
  await writeFile(join(own, addon, 'onnxruntime_binding.node'), 'no shared library');
  return join(folder, 'dist/src/cli/main.js');
}

describe('where the addon of onnxruntime does not load', () => {
  it('doctor works, and says that no provider opens and why', async () => {
    const program = await installationWithoutOnnxruntime();
    const { code, stdout, stderr } = await darkroom(['doctor'], { program });
    expect([code, stderr]).toEqual([1, '']);
    expect(stdout).toMatch(/^ok {2}node/m);
    expect(stdout.trim().split('\n').at(-1)).toMatch(/^next: (?!npx darkroom)./);
    expect(stdout).toMatch(/^no {2}cpu .*onnxruntime_binding\.node: (file too short|invalid ELF header)/m);
  });

  it.each([['bridge'], ['jobs'], ['generate'], ['serve'], ['models']])('%s shows its options', async (command) => {
    const program = await installationWithoutOnnxruntime();
    const { code, stdout } = await darkroom([command, '--help'], { program });
    expect([code, stdout]).toEqual([0, expect.stringMatching(`^Usage: darkroom ${command}`)]);
  });
});

describe('serve', () => {
  it('says in one sentence that its address is taken', async () => {
    const serving = await serve();
    const address = `127.0.0.1:${serving.server.port}`;
    const { code, stderr } = await darkroom(['serve', '--sdxl', inject('tinySdxl'), '--listen', address]);
    await serving.stop();
    const sentence = `darkroom: cannot listen on ${address}: something else listens there; set another address in DARKROOM_LISTEN (--listen)\n`;
    expect([code, stderr]).toEqual([1, sentence]);
  });
});

describe('DARKROOM_SERVER with several addresses', () => {
  it.each([
    ['generate', ['a red circle', '--width', '64', '--height', '64', '--steps', '1']],
    ['estimate', ['a red circle', '--width', '64', '--height', '64', '--steps', '1']],
    ['tokenize', ['a red circle']],
  ])('takes %s to the first server that answers', async (command, args) => {
    const serving = await serve();
    try {
      const { code, stderr } = await darkroom([command, ...args], {
        cwd: await tempFolder(),
        env: { DARKROOM_SERVER: `127.0.0.1:1,127.0.0.1:${serving.server.port}` },
      });
      expect([code, stderr.includes('darkroom:')]).toEqual([0, false]);
    } finally {
      await serving.stop();
    }
  });

  it('names every server where none answers, in each command that calls one', async () => {
    for (const command of ['generate', 'estimate', 'enhance', 'tokenize']) {
      const { code, stderr } = await darkroom([command, 'a red circle'], {
        env: { DARKROOM_SERVER: '127.0.0.1:1,127.0.0.1:2' },
      });
      expect([command, code]).toEqual([command, 1]);
      expect(stderr).toMatch(/^darkroom: no server takes calls: .*127\.0\.0\.1:1.*; .*127\.0\.0\.1:2/s);
    }
  });
});

describe('a command that calls an address by TLS', () => {
  it('prints its result alone, no warning of Node', async () => {
    const pem = (name: string) => join(root, `test/fixtures/tls/access/${name}.pem`);
    const serving = await serve({ TLS_CERT: pem('server'), TLS_KEY: pem('server-key') });
    onTestFinished(() => serving.stop());
    const args = ['status', '--server', `127.0.0.1:${serving.server.port}`, '--ca', pem('authority')];
    expect(await darkroom(args)).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('a path that cannot be written', () => {
  const places = async () => {
    const cwd = await tempFolder();
    await writeFile(join(cwd, 'file'), 'kept');
    return cwd;
  };
  const size = ['--width', '64', '--height', '64', '--steps', '1', '--job-id', 'unsent'];

  it.each([
    ['file', 'a file has this name (EEXIST)'],
    ['file/x', 'a part of the path is a file (ENOTDIR)'],
    ['', 'the folder cannot be made (ENOENT)'],
    ...(process.platform === 'linux' ? [['/proc/foo/bar', 'the folder cannot be made (ENOENT)']] : []),
  ])('ends generate before its job is sent: --out "%s"', async (out, reason) => {
    const serving = await serve();
    onTestFinished(() => serving.stop());
    const args = ['generate', 'a red circle', '--server', `127.0.0.1:${serving.server.port}`, ...size, '--out', out];
    expect(await darkroom(args, { cwd: await places() })).toEqual({
      code: 1,
      stdout: '',
      stderr: `darkroom: --out "${out}" cannot be written: ${reason}; name another folder\n`,
    });
    await expect(getJob(serving.client, 'unsent', 5000)).rejects.toThrow('job_id "unsent" is not known');
  });

  it.each([
    [
      'demo',
      ['demo'],
      'the folder "out" cannot be written: a file has this name (EEXIST); run the demo in another folder',
    ],
    [
      'models synthesize',
      ['models', 'synthesize', 'qwen-tiny', 'out'],
      'path "out" cannot be written: a file has this name (EEXIST); name another one',
    ],
    [
      'models synthesize of a file',
      ['models', 'synthesize', 'sdxl-controlnet-tiny', 'out/x.safetensors'],
      'path "out/x.safetensors" cannot be written: a part of the path is a file (ENOTDIR); name another one',
    ],
    [
      'models convert',
      ['models', 'convert', inject('tinyQwen'), '--out', '.'],
      '--out "." cannot be written: a folder has this name (EISDIR); name another file',
    ],
  ])('is one sentence in %s', async (_, args, sentence) => {
    const cwd = await tempFolder();
    await writeFile(join(cwd, 'out'), 'kept');
    expect(await darkroom(args, { cwd })).toEqual({ code: 1, stdout: '', stderr: `darkroom: ${sentence}\n` });
  });
});

describe('a remedy that names an option', () => {
  it("names one that serve has for that model's family", async () => {
    const folder = await tempFolder();
    const path = join(folder, 'transformer.safetensors');
    await copyFile(join(inject('tinyWan'), TRANSFORMER), path);
    await writeFile(join(folder, 'config.json'), '{"num_heads": 2}');
    const error = await openWanCheckpoint({ path }).catch((caught: unknown) => caught);
    const [, flag = ''] = /give one with (--[\w-]+) FILE/.exec(String(error)) ?? [];
    const { stdout } = await darkroom(['serve', '--help']);
    // Commander breaks long lines between words.
    const help = stdout.replace(/\s+/g, ' ');
    expect(help).toMatch(new RegExp(`${flag} <path> VAE that replaces the WAN .*?\\(WAN_VAE\\)`));
  });
});

describe('models inspect', () => {
  it('reports what a language model is, a folder or a GGUF file, and what serves it', async () => {
    const cwd = await tempFolder();
    await darkroom(['models', 'synthesize', 'qwen-tiny', 'qwen'], { cwd });
    await darkroom(['models', 'convert', 'qwen', '--out', 'qwen.gguf'], { cwd });
    const numbers = '  166.0 k parameters, 0.00 GB, 2 blocks, a context of 4096 tokens\n';
    for (const [path, layout] of [
      ['qwen', "in transformers' layout"],
      ['qwen.gguf', 'in GGUF'],
    ] as const) {
      const serves = `  enhances prompts: darkroom serve --qwen ${path}\n`;
      expect(await darkroom(['models', 'inspect', path], { cwd })).toEqual({
        code: 0,
        stdout: `${path} is a Qwen2 language model ${layout}.\n${numbers}${serves}`,
        stderr: '',
      });
    }
  });

  it.each([
    [
      'an SDXL folder without its index',
      'sdxl-tiny',
      'model_index.json',
      'x/model_index.json is missing; a diffusers-layout SDXL folder has it',
    ],
    [
      'a WAN folder without its index',
      'wan-tiny',
      'model_index.json',
      "x has no diffusion_pytorch_model.safetensors and no index of shards, but a folder transformer: in diffusers' layout its model_index.json is missing; download the checkpoint again",
    ],
    [
      'a Qwen folder without its weights',
      'qwen-tiny',
      'model.safetensors',
      'x has no model.safetensors and no index of shards; name the folder of a whole checkpoint, or get its missing files',
    ],
  ])('names the file that is missing: %s', async (_, size, file, sentence) => {
    const cwd = await tempFolder();
    await darkroom(['models', 'synthesize', size, 'x'], { cwd });
    await rm(join(cwd, 'x', file));
    const { code, stderr } = await darkroom(['models', 'inspect', 'x'], { cwd });
    expect([code, stderr]).toEqual([1, `darkroom: ${sentence}\n`]);
  });

  it('refuses an option of another family instead of ignoring it', async () => {
    const { code, stderr } = await darkroom(['models', 'inspect', inject('tinyWan'), '--vae', 'vae.safetensors']);
    expect([code, stderr]).toEqual([
      1,
      'darkroom: --vae is for SDXL, the checkpoint is of WAN; use --wan-vae, --wan-text-encoder, --wan-image-encoder, --wan-tokenizer\n',
    ]);
  });
});
