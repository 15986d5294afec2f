/** The engine process for prompts: it loads one language model and writes several prompts at a time. */
import { Enhancer } from '../enhancer/enhancer.js';
import { serveEngine } from './engine-process.js';
import type { TextWork } from './messages.js';

/** Smallest time between two reports of load progress, in ms. */
const PROGRESS_MS = 250;

let enhancer: Enhancer | undefined;

serveEngine<TextWork>({
  async load({ source, device, threads }, onProgress) {
    let toldAt = Number.NEGATIVE_INFINITY;
    enhancer = await Enhancer.load(source, {
      device,
      threads,
      onProgress(stage, fraction) {
        const now = performance.now();
        if (now - toldAt < PROGRESS_MS && fraction < 1) return;
        toldAt = now;
        onProgress({ stage, fraction });
      },
    });
    return { info: enhancer.info, device: enhancer.device, rejected: [] };
  },
  async run(jobs, reporter) {
    await Promise.all(
      jobs.map(async ({ jobId, request }) => {
        try {
          if (enhancer === undefined) throw new Error('the engine got a prompt while it was not loaded');
          const events = enhancer.enhance(request, reporter.signal(jobId));
          for (let next = await events.next(); ; next = await events.next()) {
            if (next.done) return reporter.done(jobId, next.value);
            reporter.emit(jobId, next.value);
          }
        } catch (error) {
          reporter.fail(jobId, error);
        }
      }),
    );
  },
});
