// Makes docs/images/page.png: starts a server with the demo model and its page, draws six images in Chromium, and takes a picture.
// npm run build && node scripts/picture-page.mjs
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import sharp from 'sharp';

const root = join(import.meta.dirname, '..');
const main = join(root, 'dist/src/cli/main.js');
const args = ['serve', '--sdxl', join(root, 'assets/demo-sdxl'), '--device', 'cpu'];
const server = spawn(process.execPath, [main, ...args, '--listen', '127.0.0.1:0', '--web', '127.0.0.1:0'], {
  env: { ...process.env, METRICS_LISTEN: 'off', LOG_LEVEL: 'warn' },
  stdio: ['ignore', 'pipe', 'inherit'],
});
let url = '';
for await (const line of createInterface({ input: server.stdout })) {
  url = /the page is at (\S+)/.exec(line)?.[1] ?? url;
  if (line.endsWith('is ready on cpu')) break;
}

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
try {
  const page = await browser.newPage({ viewport: { width: 1240, height: 840 }, colorScheme: 'light' });
  await page.goto(url);
  await page.getByLabel('Prompt', { exact: true }).fill('a (large:1.3) red circle on a blue background');
  await page.getByLabel('Seed').fill('7');
  await page.getByLabel('Images').selectOption('6');
  await page.getByTestId('token-count').waitFor();
  await page.getByRole('button', { name: 'Generate', exact: true }).click();
  await page.getByTestId('result').waitFor();
  await page.getByTestId('result').getByRole('img').nth(5).waitFor();
  await page.getByTestId('estimate').getByText('steps').waitFor();
  const picture = await page.screenshot();
  await sharp(picture).png({ palette: true, compressionLevel: 9 }).toFile(join(root, 'docs/images/page.png'));
} finally {
  await browser.close();
  server.kill();
  await once(server, 'exit');
}
