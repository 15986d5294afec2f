import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { queueOperations } from '../../src/cli/web/queue-operations.js';
import { connect, listJobs } from '../../src/client/client.js';
import { readBridgeConfig } from '../../src/config/bridge-config.js';
import { VideoWriter } from '../../src/media/video-writer.js';
import { openQueue } from '../../src/queue-bridge/queue/open-queue.js';
import { writeSyntheticUpscaler } from '../../src/synthetic/upscaler.js';
import type { Gateway } from '../../src/web/gateway.js';
import { rebuildModel } from '../conformance/golden-folder.js';
import { accessibilityProblems, launchBrowser, openPage } from '../support/browser.js';
import { gateway } from '../support/gateway.js';
import { freePort, startRedis } from '../support/redis-server.js';
import { outcomeOf, quick, type Serving, serve, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../support/tensor-file.js';
import { goldens } from '../support/tiny-wan.js';

const token = 'a-token-of-the-tests';

let browser: Browser;
let serving: Serving;
let web: Gateway;

beforeAll(async () => {
  browser = await launchBrowser();
  serving = await serve({ JOB_RETENTION: '1000' });
  web = await gateway(serving.client);
});
afterAll(async () => {
  await browser.close();
  await web.close();
  await serving.stop();
});

/** Fills the form. Steps decide how long the job runs. */
async function fill(page: Page, prompt: string, steps: number, side = 64): Promise<void> {
  await page.getByLabel('Prompt', { exact: true }).fill(prompt);
  await page.getByLabel('Width').fill(String(side));
  await page.getByLabel('Height').fill(String(side));
  await page.getByLabel('Steps').fill(String(steps));
}

/** Evaluated in the page: the pixels of its first result. */
const PIXELS_OF_RESULT = `(async () => {
  const image = document.querySelector('[data-testid=result] img');
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data.join();
})()`;

/** Evaluated in the page: drops a file on the place for references. */
const dropOf = (file: Buffer) => `(() => {
  const bytes = Uint8Array.from(atob('${file.toString('base64')}'), (c) => c.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], 'dropped.png', { type: 'image/png' }));
  const place = document.querySelector('[data-testid=drop-single]');
  place.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
})()`;

const start = (page: Page) => page.getByRole('button', { name: 'Generate', exact: true }).click();

describe('Generate', () => {
  it('shows tokens, weights and an estimate, then the result, which the same seed makes again', async () => {
    const { page, complaints } = await openPage(browser, web.url);
    await fill(page, 'a (red:1.3) circle', 4);
    await page.getByTestId('token-count').getByText('3 tokens in 1 chunk').waitFor();
    expect(await page.getByRole('list', { name: 'Weights' }).textContent()).toBe('red 1.30');
    await page.getByTestId('estimate').getByText('64 × 64, 4 steps').waitFor();
    await start(page);
    const image = page.getByTestId('result').getByRole('img', { name: 'a (red:1.3) circle' });
    await image.waitFor();
    const shown = () => page.evaluate<string>(PIXELS_OF_RESULT);
    const first = await shown();
    const again = page.getByRole('button', { name: /^Again with seed \d+$/ });
    const seed = (await again.textContent())?.replace(/\D/g, '') ?? '';
    await again.click();
    expect(await page.getByLabel('Seed').inputValue()).toBe(seed);
    const earlier = page.url();
    await start(page);
    // The address has the job's id. Its progress may be over before it is seen.
    await page.waitForURL((url) => url.href !== earlier);
    await image.waitFor();
    expect(await shown()).toBe(first);
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download' }).click();
    expect((await download).suggestedFilename()).toMatch(/^web-[0-9a-f]+-0\.png$/);
    expect(complaints).toEqual([]);
  });

  it('says a mistake by its field before the start', async () => {
    const { page } = await openPage(browser, web.url);
    await fill(page, 'a red circle', 4, 100);
    await page.getByTestId('estimate').getByText('width 100 must be a multiple of 8').waitFor();
  });

  it('shows progress and previews by the keyboard alone, and cancels', async () => {
    const { page } = await openPage(browser, web.url);
    await fill(page, 'a slow red circle', 600, 256);
    await page.keyboard.press('Control+Enter');
    await page.getByRole('img', { name: 'Preview of the unfinished result' }).waitFor();
    await page.getByText(/^Drawing, step \d+ of 600, .* left$/).waitFor();
    await page.getByTestId('announcement').getByText('Drawing').waitFor({ state: 'attached' });
    await page.getByRole('button', { name: 'Cancel' }).focus();
    await page.keyboard.press('Enter');
    await page.getByTestId('job-error').getByText('Cancelled.').waitFor();
  });

  it('takes a dropped image as the start, and a mask of what is drawn anew', async () => {
    const { page } = await openPage(browser, web.url);
    const blue = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'blue' } })
      .png()
      .toBuffer();
    const chosen = { name: 'blue.png', mimeType: 'image/png', buffer: blue };
    await page.getByLabel(/^Image to start from/).setInputFiles(chosen);
    await page.getByRole('img', { name: 'Image to start from: blue.png' }).waitFor();
    await page.getByRole('button', { name: 'Remove blue.png' }).click();
    await page.evaluate(dropOf(blue));
    await page.getByRole('img', { name: 'Image to start from: dropped.png' }).waitFor();
    await fill(page, 'a red circle', 4);
    await start(page);
    await page.getByTestId('result').getByText('img2img').waitFor();
    const white = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'white' } })
      .png()
      .toBuffer();
    await page.getByLabel(/^Mask/).setInputFiles({ name: 'white.png', mimeType: 'image/png', buffer: white });
    await page.getByRole('img', { name: /white\.png$/ }).waitFor();
    await start(page);
    await page.getByTestId('result').getByText('inpaint').waitFor();
  });
});

describe('what the models of a server can do', () => {
  it('LoRAs with their trained tags', async () => {
    const folder = await tempFolder();
    const golden = new URL('../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url);
    const tags = JSON.stringify({ '1_ink': { 'ink wash': 3 } });
    const tensors = await readTensorFile(fileURLToPath(golden));
    await writeTensorFile(join(folder, 'ink.safetensors'), tensors, { ss_tag_frequency: tags });
    const own = await serve({ SDXL_PATH: inject('wholeSdxl'), LORA_DIR: folder });
    const gate = await gateway(own.client);
    onTestFinished(async () => {
      await gate.close();
      await own.stop();
    });
    const { page } = await openPage(browser, gate.url);
    await page.getByLabel('ink', { exact: true }).check();
    await page.getByLabel('Weight of ink').fill('0.5');
    await fill(page, 'a circle', 2);
    await page.getByRole('button', { name: 'ink wash' }).click();
    expect(await page.getByLabel('Prompt', { exact: true }).inputValue()).toBe('a circle, ink wash');
    await start(page);
    await page.getByTestId('result').getByText('ink (0.5)').waitFor();
  });

  it('larger images, by an upscaler too, and the same job again', async () => {
    const folder = await tempFolder();
    await writeSyntheticUpscaler(join(folder, 'tiny.safetensors'), 'upscaler-tiny');
    const own = await serve({ UPSCALER_DIR: folder });
    const gate = await gateway(own.client);
    onTestFinished(async () => {
      await gate.close();
      await own.stop();
    });
    const { page } = await openPage(browser, gate.url);
    await fill(page, 'a circle', 2);
    await page.getByLabel(/^Enlarge(?! with)/).selectOption('2');
    await page.getByLabel('Enlarge with').selectOption('tiny');
    await page.getByLabel('Draw again').fill('0.5');
    await start(page);
    await page.getByTestId('result').getByText('128 × 128').waitFor();
    await page.getByTestId('result').getByText('2 times with tiny, drawn again at 0.5').waitFor();
    await page.getByRole('button', { name: /^Again with seed/ }).click();
    expect(await page.getByLabel('Width').inputValue()).toBe('64');
    expect(await page.getByLabel('Draw again').inputValue()).toBe('0.5');
  });

  it('a video, which the gallery plays', async () => {
    const own = await serve({ WAN_PATH: inject('tinyWan') });
    const gate = await gateway(own.client);
    onTestFinished(async () => {
      await gate.close();
      await own.stop();
    });
    const { page, complaints } = await openPage(browser, gate.url);
    await page.getByLabel('Job type').selectOption('video_fast');
    await page.getByLabel('Frames').fill('5');
    await fill(page, 'a circle that grows', 2);
    await start(page);
    await page.getByTestId('result').getByText('5 at 16 per second').waitFor();
    await page.getByRole('link', { name: 'Gallery' }).click();
    await page.getByRole('button', { name: 'a circle that grows' }).click();
    await page.getByRole('dialog', { name: 'Result' }).locator('video').waitFor();
    // HAVE_CURRENT_DATA: Chromium decoded the first frame.
    await until(async () => (await page.evaluate<number>("document.querySelector('dialog video').readyState")) >= 2);
    expect(await page.evaluate("document.querySelector('dialog video').videoWidth")).toBe(64);
    expect(complaints).toEqual([]);
  });
});

describe('what the page survives', () => {
  it('a reload and a second tab: both show the running job to its end', async () => {
    const { page } = await openPage(browser, web.url);
    await fill(page, 'a circle in two tabs', 150);
    await start(page);
    await page.getByRole('progressbar').waitFor();
    const second = await page.context().newPage();
    await second.goto(page.url());
    await page.reload();
    // A tab that is not seen asks for nothing, and a reload may have brought the other one to the front.
    await second.bringToFront();
    await second.getByTestId('result').waitFor();
    await page.bringToFront();
    await page.getByTestId('result').waitFor();
  });

  it('a gateway that is gone for a while: the events go on where they stopped', async () => {
    const port = await freePort();
    const first = await gateway(serving.client, { WEB_LISTEN: `127.0.0.1:${port}` });
    const { page } = await openPage(browser, first.url);
    await fill(page, 'a circle over a gap', 200);
    await start(page);
    await page.getByText(/^Drawing, step/).waitFor();
    await first.close();
    await page.getByTestId('interruption').getByText('does not answer').waitFor();
    const again = await gateway(serving.client, { WEB_LISTEN: `127.0.0.1:${port}` });
    onTestFinished(() => again.close());
    await page.getByTestId('result').waitFor();
    expect(await page.getByTestId('interruption').count()).toBe(0);
  });

  it('a restarted server: the page says so, and starts the job again', async () => {
    const port = await freePort();
    const variables = { DARKROOM_LISTEN: `127.0.0.1:${port}` };
    const before = await serve(variables);
    const client = connect(`127.0.0.1:${port}`);
    const own = await gateway(client);
    onTestFinished(async () => {
      await own.close();
      client.close();
    });
    const { page } = await openPage(browser, own.url);
    await fill(page, 'a circle twice', 900, 128);
    await start(page);
    await page.getByText(/^Drawing, step/).waitFor();
    await before.stop();
    await page.getByText('The server is offline').waitFor();
    const after = await serve(variables);
    onTestFinished(() => after.stop());
    await page.getByTestId('job-error').waitFor();
    await page.getByLabel('Steps').fill('2');
    await page.getByRole('button', { name: 'Start it again' }).click();
    await page.getByTestId('result').waitFor();
    await page.getByText('The server is offline').waitFor({ state: 'detached' });
  });

  it('a wrong token: the page says so and asks again', async () => {
    const guarded = await serve({ AUTH_TOKEN: token }, { startsLater: true });
    const open = await gateway(guarded.client, { WEB_LISTEN: '0.0.0.0:0' });
    onTestFinished(async () => {
      await open.close();
      await guarded.stop();
    });
    const { page } = await openPage(browser, open.url.replace('0.0.0.0', '127.0.0.1'));
    const dialog = page.getByRole('dialog', { name: 'Token' });
    await dialog.getByLabel('Token', { exact: true }).fill('not-the-token');
    await dialog.getByRole('button').click();
    await dialog.getByText('The server refused the token').waitFor();
    expect(await accessibilityProblems(page)).toEqual([]);
    await dialog.getByLabel('Token', { exact: true }).fill(token);
    await dialog.getByRole('button').click();
    await page.getByText('0 running, 0 queued').waitFor();
    expect(await dialog.isVisible()).toBe(false);
    expect(await page.evaluate("sessionStorage.getItem('darkroom-token')")).toBe(token);
  });
});

describe('Gallery', () => {
  it('has 250 jobs without loading their files, filters them, and turns pages in the lightbox', async () => {
    for (let k = 0; k < 250; k += 50) {
      const batch = Array.from({ length: 50 }, (_, i) => `shape number ${k + i}`);
      await Promise.all(batch.map((prompt) => outcomeOf(serving.client, { ...quick, prompt, steps: 1 })));
    }
    const { page, complaints } = await openPage(browser, `${web.url}/#/gallery`);
    let files = 0;
    page.on('request', (request) => {
      if (request.url().includes('/files/')) files += 1;
    });
    await page.getByTestId('gallery-count').getByText('100 of 100 jobs, and older ones').waitFor();
    await page.getByRole('img', { name: 'shape number 249' }).waitFor();
    expect(files).toBeLessThan(100);
    for (let i = 0; i < 6; i += 1) {
      const more = page.getByRole('button', { name: 'Load older jobs' });
      if ((await more.count()) === 0) break;
      await more.scrollIntoViewIfNeeded();
      await page.waitForTimeout(300);
    }
    await page
      .getByTestId('gallery-count')
      .getByText(/^2\d\d of 2\d\d jobs$/)
      .waitFor();
    await page.getByLabel('Search the prompts').fill('shape number 12');
    await page
      .getByTestId('gallery-count')
      .getByText(/^11 of/)
      .waitFor();
    await page.getByRole('img', { name: 'shape number 129' }).click();
    const box = page.getByRole('dialog', { name: 'Result' });
    await box.getByRole('img', { name: 'shape number 129' }).waitFor();
    await page.keyboard.press('ArrowRight');
    await box.getByRole('img', { name: 'shape number 128' }).waitFor();
    await page.keyboard.press('Escape');
    expect(await box.isVisible()).toBe(false);
    expect(complaints).toEqual([]);
  });

  it('shows a job that ends while it is open', async () => {
    const { page } = await openPage(browser, `${web.url}/#/gallery`);
    await page.getByTestId('gallery-count').getByText('jobs').waitFor();
    await outcomeOf(serving.client, { ...quick, prompt: 'a newcomer' });
    await page.getByRole('img', { name: 'a newcomer' }).waitFor();
  });
});

describe('a control video', () => {
  it('is chosen for a video of a model that follows one, and shown', async () => {
    const name = 'wan-vace-tiny';
    const own = await serve({ WAN_PATH: await rebuildModel(goldens(name), join(await tempFolder(), name)) });
    const gate = await gateway(own.client);
    onTestFinished(async () => {
      await gate.close();
      await own.stop();
    });
    const { page, complaints } = await openPage(browser, gate.url);
    await page.getByLabel('Job type').selectOption('video_fast');
    await fill(page, 'a red kite', 2);
    await page.getByLabel('Frames').fill('9');
    const writer = await VideoWriter.start('ffmpeg', { width: 64, height: 64, fps: 16, format: 'mp4' });
    for (let i = 0; i < 5; i += 1) await writer.write(new Uint8Array(64 * 64 * 3).fill(50 * i));
    const buffer = Buffer.from((await writer.finish()).bytes);
    await page.getByLabel(/^Control video/).setInputFiles({ name: 'pose.mp4', mimeType: 'video/mp4', buffer });
    await page.getByRole('button', { name: 'Remove pose.mp4' }).waitFor();
    // The roles of references are those that the model takes.
    for (const role of ['First frame', 'Last frame', 'Look']) await page.getByLabel(new RegExp(`^${role}`)).waitFor();
    expect(await accessibilityProblems(page)).toEqual([]);
    await start(page);
    await page.getByTestId('result').waitFor();
    const { jobs } = await listJobs(own.client, {}, 5000);
    expect(jobs[0]?.metadata?.controlVideo).toEqual({ frames: 5, scale: undefined });
    expect(complaints).toEqual([]);
  });
});

describe('Operations', () => {
  it('shows engines, and failures with their reason', async () => {
    const own = await serve({ LORA_DIR: await tempFolder() });
    const gate = await gateway(own.client);
    onTestFinished(async () => {
      await gate.close();
      await own.stop();
    });
    const running = outcomeOf(own.client, { ...quick, jobId: 'unlucky', width: 512, height: 512, steps: 400 });
    const { page } = await openPage(browser, `${gate.url}/#/operations`);
    await page.getByRole('row', { name: /^sdxl sdxl F16 (ready|busy) cpu/ }).waitFor();
    await page.getByRole('row', { name: /^unlucky .* running/ }).waitFor();
    process.kill(own.engine.pid ?? 0, 'SIGKILL');
    await running;
    await page.getByRole('row', { name: /^unlucky .* failed ENGINE_CRASHED: / }).waitFor();
    await page.getByRole('cell', { name: '1', exact: true }).waitFor();
  });

  it('shows the queue of a bridge in Redis, and replays a dead job', async () => {
    const redis = await startRedis();
    const config = readBridgeConfig({}, { REDIS_URL: redis.url, CALLBACK_URL: 'http://127.0.0.1:1' });
    const queue = openQueue(config);
    const gate = await gateway(serving.client, {}, queueOperations(queue));
    onTestFinished(async () => {
      await gate.close();
      await queue.close();
      await redis.stop();
    });
    const [{ name: lane, queue: list }] = config.lanes;
    await queue.push(list, '{"id":"dead-one"}');
    const { payloads } = await queue.poll();
    const admission = { kind: 'job', id: 'dead-one', user: 'ann', lane, type: 'sdxl_image_fast' } as const;
    await queue.admit(list, [[payloads[0]?.sha1 ?? '', admission]]);
    const lanes = [{ lane, weight: 1, server: 's', keeps: false }];
    await queue.claim({ token: 't', worker: 'bridge-1', leaseMs: 60_000, seed: 1, lanes });
    const { page } = await openPage(browser, `${gate.url}/#/operations`);
    await page
      .getByRole('region', { name: 'Leased jobs' })
      .getByRole('row', { name: /dead-one .* bridge-1/ })
      .waitFor();
    await queue.finish({ id: 'dead-one', token: 't', state: 'dead', callback: '{}', progress: '{}' });
    const replay = page.getByRole('button', { name: 'Replay dead-one' });
    await replay.waitFor();
    expect(await accessibilityProblems(page)).toEqual([]);
    await replay.click();
    await page.getByText('dead-one runs again.').waitFor();
    await replay.waitFor({ state: 'detached' });
    expect((await queue.counts()).waiting).toBe(1);
    await page.getByRole('row', { name: 'ann 1' }).waitFor();
  });
});

describe('accessibility', () => {
  it.each(['light', 'dark'] as const)(
    'axe-core finds nothing in %s, and a phone needs no sideways scroll',
    async (colorScheme) => {
      const { page } = await openPage(browser, web.url, { colorScheme, viewport: { width: 390, height: 844 } });
      await fill(page, 'a (red:1.3) circle', 4);
      await start(page);
      await page.getByTestId('result').getByRole('img').waitFor();
      for (const view of ['Generate', 'Gallery', 'Operations']) {
        await page.getByRole('link', { name: view }).click();
        await page.waitForTimeout(300);
        expect([view, await accessibilityProblems(page)]).toEqual([view, []]);
        expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
      }
      await page.getByRole('link', { name: 'Gallery' }).click();
      await page.locator('.tile img').first().click();
      await page.getByRole('dialog', { name: 'Result' }).getByRole('img').waitFor();
      expect(await accessibilityProblems(page)).toEqual([]);
    },
  );
});
