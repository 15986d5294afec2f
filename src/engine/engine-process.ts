import { InferenceError } from '../errors.js';
import { ReplacedFileError } from '../pipelines/common/source-files.js';
import { MessagedTurns, type RunTurns } from '../runtime/run-turns.js';
import { toEngineError } from './engine-error.js';
import type { Loaded, LoadProgress, MessageFromEngine, MessageToEngine, Work } from './messages.js';
import { endWithParent } from './parent-watch.js';

/** The part of an engine process that differs between kinds of engines. */
export interface EngineProgram<W extends Work> {
  /** Called once, before the first run. */
  load(spec: W['spec'], onProgress: (progress: LoadProgress) => void): Promise<Loaded<W>>;
  /**
   * Runs a batch of jobs. Reports the end of each one; if the promise rejects, the remaining ones fail with that error.
   */
  run(jobs: readonly W['job'][], reporter: JobReporter<W>): Promise<void>;
}

/** Reports events and results of jobs to the parent process. */
export interface JobReporter<W extends Work> {
  /** Aborted with the InferenceError that ends the job. */
  signal(jobId: string): AbortSignal;
  /** Nothing of a job that has ended. */
  emit(jobId: string, event: W['event']): void;
  done(jobId: string, result: W['result']): void;
  /** Ends the job. Its signal is aborted, so that nothing more is done for it. */
  fail(jobId: string, error: unknown): void;
  /** Number of received jobs that have not ended. */
  readonly running: number;
}

/** What a program asks of the parent process. */
export interface ParentLink<W extends Work> {
  /** Reports that the description of the model changed. */
  inform(info: W['info']): void;
  /** Turns on the device that this engine shares. */
  readonly turns: RunTurns;
  /** Tells the operator, in the log of the parent process. */
  warn(problem: string): void;
  /** Asks for memory of the device that something else keeps idle. Resolves when it is free; false if there is none. */
  requestMemory(): Promise<boolean>;
}

/** Speaks the protocol of the parent's `Engine` for a program. This process ends with its parent. */
export function serveEngine<W extends Work>(program: EngineProgram<W>): ParentLink<W> {
  endWithParent();
  let requests = 0;
  let onTurn: (() => void) | undefined;
  const requested = new Map<number, (isFreed: boolean) => void>();
  const running = new Map<string, AbortController>();
  const end = (jobId: string, message: MessageFromEngine<W>) => {
    if (running.delete(jobId)) send(message);
  };
  const reporter: JobReporter<W> = {
    signal: (jobId) => running.get(jobId)?.signal ?? AbortSignal.abort(),
    emit: (jobId, event) => {
      if (running.has(jobId)) send({ kind: 'event', jobId, event });
    },
    done: (jobId, result) => end(jobId, { kind: 'done', jobId, result }),
    fail: (jobId, error) => {
      running.get(jobId)?.abort(error);
      end(jobId, { kind: 'failed', jobId, error: toEngineError(error).toJSON() });
    },
    get running() {
      return running.size;
    },
  };

  const load = async (spec: W['spec']) => {
    const startedAt = performance.now();
    try {
      const loaded = await program.load(spec, (progress) => send({ kind: 'loading', ...progress }));
      send({ kind: 'ready', loadMs: performance.now() - startedAt, ...loaded });
    } catch (error) {
      send({ kind: 'start-failed', error: toEngineError(error).toJSON() }, () => process.exit(1));
    }
  };
  const run = async (jobs: readonly W['job'][]) => {
    for (const { jobId } of jobs) running.set(jobId, new AbortController());
    try {
      await program.run(jobs, reporter);
    } catch (error) {
      if (error instanceof ReplacedFileError)
        return send({ kind: 'outdated', file: error.file, error: error.toJSON() });
      // Jobs of a batch share their runs, so one failure fails all of them.
      for (const { jobId } of jobs) reporter.fail(jobId, error);
    }
  };
  process.on('message', (message: MessageToEngine<W>) => {
    switch (message.kind) {
      case 'start':
        void load(message.spec);
        return;
      case 'run':
        void run(message.jobs);
        return;
      case 'cancel':
        running.get(message.jobId)?.abort(new InferenceError('CANCELLED', 'the job was cancelled'));
        return;
      case 'turn':
        onTurn?.();
        return;
      case 'memory':
        requested.get(message.request)?.(message.isFreed);
        requested.delete(message.request);
        return;
      case 'shutdown':
        // The process ends only after a run on another thread.
        for (const job of running.values()) job.abort(new InferenceError('DRAINING', 'the server is stopping'));
        process.exit(0);
    }
  });

  const turns = new MessagedTurns({
    request: () =>
      new Promise((resolve) => {
        onTurn = resolve;
        send({ kind: 'request-turn' });
      }),
    end: () => send({ kind: 'end-turn' }),
  });
  return {
    turns,
    inform: (info) => send({ kind: 'info', info }),
    warn: (problem) => send({ kind: 'warning', problem }),
    requestMemory: () =>
      new Promise((resolve) => {
        requests += 1;
        requested.set(requests, resolve);
        send({ kind: 'request-memory', request: requests });
      }),
  };

  function send(message: MessageFromEngine<W>, sent?: () => void): void {
    // If the parent is gone nobody listens; this process ends with it.
    if (process.connected) process.send?.(message, undefined, undefined, () => sent?.());
  }
}
