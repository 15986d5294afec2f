import OpenAI, { APIError, toFile } from 'openai';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Gateway } from '../../src/web/gateway.js';
import { ask, gateway } from '../support/gateway.js';
import { outcomeOf, quick, type Serving, serve } from '../support/serving.js';

const token = 'a-token-of-the-tests';

let serving: Serving;
let web: Gateway;
let openai: OpenAI;

beforeAll(async () => {
  serving = await serve({ AUTH_TOKEN: token });
  web = await gateway(serving.client, { WEB_OPENAI: 'true' });
  openai = new OpenAI({ baseURL: `${web.url}/v1`, apiKey: token, maxRetries: 0 });
});
afterAll(async () => {
  await web.close();
  await serving.stop();
});

/** The error of a call. */
async function errorOf(call: Promise<unknown>): Promise<APIError> {
  const caught = await call.then(
    () => new Error('no error'),
    (error: unknown) => error,
  );
  if (caught instanceof APIError) return caught;
  throw caught;
}

const square = { width: 64, height: 64 };
const small = { prompt: 'a red circle', size: '64x64' as '256x256', seed: 5, steps: 2 };

describe("OpenAI's own client", () => {
  it('lists the models that make images', async () => {
    const { data } = await openai.models.list();
    expect(data.map(({ id }) => id)).toEqual(['sdxl_image_fast', 'sdxl_image_high', 'sdxl']);
    expect(await openai.models.retrieve('sdxl')).toMatchObject({ object: 'model' });
  });

  it('gets the image that Generate makes from the same seed', async () => {
    const { data = [] } = await openai.images.generate({ model: 'sdxl_image_fast', ...small });
    const { files } = await outcomeOf(serving.client, { ...quick, jobType: 1, seed: 5n });
    const pixels = async (file: Buffer) => (await sharp(file).raw().toBuffer()).toString('base64');
    expect(await pixels(Buffer.from(data[0]?.b64_json ?? '', 'base64'))).toBe(await pixels(files[0] ?? Buffer.of()));
  });

  it('gets as many images as it asks for, each with the next seed, by URLs that need no token', async () => {
    const { data = [] } = await openai.images.generate({ ...small, n: 4, response_format: 'url' });
    expect(data.map((image) => (image as { seed?: number }).seed)).toEqual([5, 6, 7, 8]);
    const images = await Promise.all(
      data.map(async ({ url = '' }) => Buffer.from(await (await fetch(url)).arrayBuffer())),
    );
    expect(new Set(images.map((image) => image.toString('base64'))).size).toBe(4);
    for (const image of images) expect(await sharp(image).metadata()).toMatchObject({ format: 'png', width: 64 });
  });

  it('starts from an image', async () => {
    const blue = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'blue' } })
      .png()
      .toBuffer();
    const { data = [] } = await openai.images.edit({ image: await toFile(blue, 'blue.png'), ...small });
    const metadata = await sharp(Buffer.from(data[0]?.b64_json ?? '', 'base64')).metadata();
    expect(metadata).toMatchObject({ width: 64, height: 64 });
    const { jobs } = (await ask(`${web.url}/api/jobs?pageSize=1`)).body as { jobs: { metadata: object }[] };
    expect(jobs[0]?.metadata).toMatchObject({ referenceApplied: true, referenceMethod: 'img2img' });
  });

  it('redraws what is transparent in a mask, and keeps the rest pixel for pixel', async () => {
    const image = await sharp({ create: { ...square, channels: 3, background: 'blue' } })
      .png()
      .toBuffer();
    const rgba = Buffer.alloc(64 * 64 * 4).fill(255, 64 * 32 * 4);
    const mask = await sharp(rgba, { raw: { ...square, channels: 4 } })
      .png()
      .toBuffer();
    const files = { image: await toFile(image, 'image.png'), mask: await toFile(mask, 'mask.png') };
    const { data = [] } = await openai.images.edit({ ...files, ...small });
    const made = await sharp(Buffer.from(data[0]?.b64_json ?? '', 'base64'))
      .removeAlpha()
      .raw()
      .toBuffer();
    const row = (y: number) => made.subarray(y * 64 * 3, (y + 1) * 64 * 3).toString('hex');
    expect(row(60)).toBe('0000ff'.repeat(64));
    expect(row(4)).not.toBe('0000ff'.repeat(64));
  });

  it('streams partial images, then the image', async () => {
    const stream = await openai.images.generate({ ...small, steps: 30, stream: true, partial_images: 1 } as Parameters<
      typeof openai.images.generate
    >[0] & { stream: true });
    const types: string[] = [];
    let last = '';
    for await (const event of stream) {
      types.push(event.type);
      last = event.b64_json;
    }
    expect(types).toEqual(['image_generation.partial_image', 'image_generation.completed']);
    expect(await sharp(Buffer.from(last, 'base64')).metadata()).toMatchObject({ format: 'png', width: 64 });
  });
});

describe("errors have OpenAI's shape", () => {
  it('an unknown key', async () => {
    const stranger = new OpenAI({ baseURL: `${web.url}/v1`, apiKey: 'wrong-token', maxRetries: 0 });
    const error = await errorOf(stranger.images.generate(small));
    expect([error.status, error.code, error.type]).toEqual([401, 'invalid_api_key', 'authentication_error']);
  });

  it('an unknown model, with the names of those that there are', async () => {
    const error = await errorOf(openai.images.generate({ ...small, model: 'watercolour' }));
    expect([error.status, error.code]).toEqual([404, 'model_not_found']);
    expect(error.message).toContain('sdxl_image_fast');
  });

  it('a bad value, by the name of its parameter', async () => {
    const size = await errorOf(openai.images.generate({ ...small, size: '100x101' as '256x256' }));
    expect([size.status, size.param, size.type]).toEqual([400, 'size', 'invalid_request_error']);
    const n = await errorOf(openai.images.generate({ ...small, n: 11 }));
    expect([n.status, n.param]).toEqual([400, 'n']);
  });

  it('a file that is no image', async () => {
    const image = await toFile(Buffer.from('not an image'), 'a.png');
    const error = await errorOf(openai.images.edit({ image, ...small }));
    expect([error.status, error.param]).toEqual([400, 'image']);
  });
});

it('is off unless it is asked for', async () => {
  const plain = await gateway(serving.client);
  const answer = await ask(`${plain.url}/v1/models`);
  await plain.close();
  expect(answer.status).toBe(404);
});
