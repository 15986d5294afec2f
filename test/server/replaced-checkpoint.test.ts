import { copyFile, cp, mkdir, rename, symlink, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { listJobs } from '../../src/client/client.js';
import { type JobEvent, Phase } from '../../src/gen/darkroom/v1/event.js';
import { JobType, OutputMetadata } from '../../src/gen/darkroom/v1/job.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { sdxlImage } from '../support/sdxl-image.js';
import { metadataOf, outcomeOf, quick, type Serving, serve, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

let folder: string;
let path: string;
let serving: Serving | undefined;
beforeEach(async () => {
  folder = await tempFolder();
  path = join(folder, 'model');
});
afterEach(() => serving?.stop());

/** Serves another checkpoint under the same path, in one step, as an operator would. */
async function replaceBy(checkpoint: string): Promise<void> {
  await symlink(checkpoint, `${path}.next`);
  await rename(`${path}.next`, path);
}

const clip = { ...quick, jobType: JobType.JOB_TYPE_VIDEO_FAST, frames: 5 };
const replaced = {
  reason: 'ENGINE_STARTING',
  message: 'the checkpoint was replaced after it was loaded; it is loaded again, send the job again',
  retryAfterMs: 1000,
};

it('does not run a job that was checked against another checkpoint', async () => {
  const other = await writeSyntheticWan(join(folder, 'other'), 'wan-ti2v-tiny');
  await replaceBy(inject('tinyWan'));
  serving = await serve({ WAN_PATH: path });
  const { client, engine } = serving;
  let denoises = false;
  const onEvent = ({ event }: JobEvent) => {
    denoises ||= event?.$case === 'progress' && event.value.phase === Phase.PHASE_DENOISE;
  };
  const running = outcomeOf(client, { ...clip, steps: 1000 }, { onEvent });
  await until(() => denoises);
  const queued = outcomeOf(client, { ...clip, jobId: 'queued', width: 80, height: 80 });
  await until(async () => (await listJobs(client, {}, 5000)).jobs.length === 2);
  await replaceBy(other);
  if (engine.pid !== undefined) process.kill(engine.pid, 'SIGKILL');
  expect((await running).error?.reason).toBe('ENGINE_CRASHED');
  expect((await queued).error).toMatchObject({
    reason: 'ENGINE_STARTING',
    message: 'the checkpoint of model "wan" was replaced after the job was checked; send the job again',
  });
});

it('opens no text encoder of another checkpoint for the transformer that it holds', async () => {
  await replaceBy(inject('tinyWan'));
  serving = await serve({ WAN_PATH: path });
  const { client, engine } = serving;
  metadataOf(await outcomeOf(client, clip));
  await replaceBy(await writeSyntheticWan(join(folder, 'other'), 'wan-ti2v-tiny'));
  expect((await outcomeOf(client, { ...clip, prompt: 'a blue kite' })).error).toMatchObject(replaced);
  await engine.whenReady();
  expect(metadataOf(await outcomeOf(client, clip)).fps).toBe(24);
  expect(engine.restarts).toBe(1);
});

it('folds LoRAs into the checkpoint that is there, once it is whole', async () => {
  const loras = join(folder, 'loras');
  await mkdir(loras);
  await copyFile(
    fileURLToPath(new URL('../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url)),
    join(loras, 'ink.safetensors'),
  );
  await replaceBy(inject('wholeSdxl'));
  const warnings: string[] = [];
  const logTo = { write: (line: string) => void (line.includes('"level":40') && warnings.push(line)) };
  serving = await serve({ SDXL_PATH: path, LORA_DIR: loras }, { logTo });
  const { client, engine } = serving;
  const job = { ...quick, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE, guidanceScale: 5, seed: 3n };
  const before = await outcomeOf(client, job);

  const half = join(folder, 'half');
  await cp(inject('wholeSdxl'), half, { recursive: true });
  await truncate(join(half, 'unet', 'diffusion_pytorch_model.safetensors'), 100_000);
  await replaceBy(half);
  const inked = { ...job, loras: [{ name: 'ink', weight: 0.8, textEncoderWeight: undefined }] };
  expect((await outcomeOf(client, inked)).error).toMatchObject({
    reason: 'ENGINE_STARTING',
    message: expect.stringMatching(/^the checkpoint was replaced after it was loaded, by one that cannot be: .*unet/s),
  });
  expect(warnings.join('')).toContain('diffusion_pytorch_model.safetensors is truncated');
  // What needs nothing of the files goes on.
  const bare = await outcomeOf(client, job);
  expect(bare.error).toBeUndefined();
  expect(bare.files).toEqual(before.files);
  expect(engine.restarts).toBe(0);

  if (engine.pid !== undefined) process.kill(engine.pid, 'SIGKILL');
  await until(() => engine.restarts >= 2);
  const waiting = outcomeOf(client, inked);
  const whole = await writeTinySdxl(join(folder, 'whole'), 'F32');
  await replaceBy(whole);
  const { files, error } = await waiting;
  expect(error).toBeUndefined();
  const alone = (checkpoint: string) =>
    sdxlImage({ path: checkpoint, loras: [{ path: join(loras, 'ink.safetensors'), weight: 0.8 }] });
  const pixels = new Uint8Array(await sharp(files[0]).raw().toBuffer());
  expect(pixels).toEqual(await alone(whole));
  expect(pixels).not.toEqual(await alone(inject('wholeSdxl')));
});
