import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Logger } from 'pino';
import { environment } from '../environment.js';
import { InferenceError } from '../errors.js';
import { createBackoff } from '../std/backoff.js';
import type { DeviceTurns, TurnSeat } from './device-turns.js';
import { EventQueue } from './event-queue.js';
import {
  type EngineJob,
  engineName,
  type ImageWork,
  type LoadProgress,
  type MessageFromEngine,
  type MessageToEngine,
  type Work,
} from './messages.js';
import { killGroup, withoutSecrets } from './process-group.js';

/**
 * `starting`: the first process loads. `restarting`: a process died; another one loads or waits for its backoff.
 * `failed`: the engine cannot start and a retry would not help. `stopped`: by `stop()`.
 */
export type EngineState = 'starting' | 'ready' | 'busy' | 'restarting' | 'failed' | 'stopped';

/**
 * Reason for a kill by the parent. `cancel`: a cancelled job did not end within the bound. `hang`: no event for too long.
 * `start`: not ready in time.
 */
export type KillReason = 'cancel' | 'hang' | 'start';

export interface RunHandle<W extends Work = ImageWork> {
  readonly events: AsyncIterable<W['event']>;
  /** Settles after the last event, with the result or an InferenceError. */
  readonly result: Promise<W['result']>;
  /** Returns at once. The job ends between two runs. After the cancel bound the engine process is killed. */
  cancel(reason?: InferenceError): void;
}

/** The parent's handle of one engine process: it starts, watches and restarts the process. */
export interface Engine<W extends Work = ImageWork> {
  readonly spec: W['spec'];
  readonly state: EngineState;
  /** Description of the model. Undefined until its checkpoint was read once. */
  readonly info: W['info'] | undefined;
  /** Progress of the process that loads now, if it reports any. */
  readonly loading: LoadProgress | undefined;
  readonly device: string | undefined;
  readonly pid: number | undefined;
  /** Number of processes started after the first one. */
  readonly restarts: number;
  /** Number of processes that were killed, by reason. */
  readonly kills: Readonly<Record<KillReason, number>>;
  /** Reason for the state `failed`. */
  readonly failure: InferenceError | undefined;
  /** Resident memory of the engine process, in bytes. */
  readonly residentBytes: number | undefined;
  /** Largest resident memory so far, in bytes. */
  readonly peakBytes: number | undefined;
  /** Starts the process. Resolves when it is ready, rejects when it cannot start. */
  start(): Promise<void>;
  /** Waits for `ready`, across restarts. Rejects when the engine failed or stopped. */
  whenReady(signal?: AbortSignal): Promise<void>;
  /** Waits for `info`, which comes long before `ready`, across restarts. Rejects when the engine failed or stopped before. */
  whenDescribed(signal?: AbortSignal): Promise<W['info']>;
  /**
   * Runs a batch of jobs and returns one handle for each. The engine must be `ready`; an on-demand engine may also be
   * `busy`.
   */
  run(jobs: readonly W['job'][]): readonly RunHandle<W>[];
  /**
   * Sets what is done when the engine's memory runs out: it frees memory that something else on the device keeps idle. Resolves to
   * false if there was none. Default: nothing is freed.
   */
  onMemoryRequest(free: () => Promise<boolean>): void;
  /** Adds a listener for changes of `state`, of `loading` and of `info`. Returns the function that removes it. */
  onStateChange(listener: (state: EngineState) => void): () => void;
  stop(): Promise<void>;
}

export interface EngineOptions<W extends Work = ImageWork> {
  readonly spec: W['spec'];
  readonly log: Logger;
  /** Program of the engine process. Default: the one for images and videos. */
  readonly entry?: URL;
  /**
   * `resident`: restarted when it dies, runs one batch at a time. `on-demand`: started by its users, also after it
   * died, and accepts jobs while others run. Default: `resident`.
   */
  readonly kind?: 'resident' | 'on-demand';
  /**
   * Time from a cancel to the kill, in ms. Default 30 s: one denoising step or one decode of the largest image on a
   * slow device.
   */
  readonly cancelBoundMs?: number;
  /** Time without an event of a running job after which the engine counts as hung, in ms. Default 10 min. */
  readonly hangTimeoutMs?: number;
  /** Time limit from the start of a process to `ready`, in ms. Default 30 min: a large checkpoint on a slow disk. */
  readonly startTimeoutMs?: number;
  /** Turns of the engines on its device. Default: none are given, and an engine that asks for one gets it at once. */
  readonly turns?: DeviceTurns | undefined;
  /** Variables of the process, over those of this one. Default: none. */
  readonly env?: NodeJS.ProcessEnv;
  /** Wait before a restart, in ms. It doubles from `initial` to `max`. Default 0.5 s to 60 s. */
  readonly backoffMs?: { readonly initial: number; readonly max: number };
}

/** Number of unused checkpoint keys that the log names. An EMA doubles the keys of a file. */
const MAX_KEYS_LOGGED = 20;
/** Number of crashes in a row while loading after which the engine gives up. */
const MAX_START_CRASHES = 5;
/** Number of times that an invalid checkpoint, in place of one that was served, is read: for ten minutes, it may be half copied. */
const MAX_INVALID_READS = 15;
/** A process that lived this long was healthy, so the backoff starts again from its initial value. */
const HEALTHY_MS = 60_000;
/** CUDA then counts cards as nvidia-smi does. Its own order begins with the fastest one. */
const CARD_ORDER: NodeJS.ProcessEnv = { CUDA_DEVICE_ORDER: 'PCI_BUS_ID' };
/** Time from a polite shutdown request to the kill, in ms. */
const STOP_GRACE_MS = 2_000;

export function createEngine<W extends Work = ImageWork>(options: EngineOptions<W>): Engine<W> {
  return new SupervisedEngine(options);
}

interface RunningJob<W extends Work> {
  readonly jobId: string;
  readonly events: EventQueue<W['event']>;
  resolve(result: W['result']): void;
  reject(error: InferenceError): void;
  /** Cancel reason of a cancelled job. */
  cancelled?: InferenceError;
  cancelTimer?: NodeJS.Timeout;
}

class SupervisedEngine<W extends Work> implements Engine<W> {
  readonly spec: W['spec'];
  state: EngineState;
  info: W['info'] | undefined;
  loading: LoadProgress | undefined;
  device: string | undefined;
  restarts = 0;
  readonly kills: Record<KillReason, number> = { cancel: 0, hang: 0, start: 0 };
  failure: InferenceError | undefined;
  readonly #options: EngineOptions<W>;
  readonly #log: Logger;
  readonly #listeners = new Set<(state: EngineState) => void>();
  readonly #backoff: ReturnType<typeof createBackoff>;
  #child: ChildProcess | undefined;
  readonly #jobs = new Map<string, RunningJob<W>>();
  #hangTimer: NodeJS.Timeout | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  #startCrashes = 0;
  #freeMemory: (() => Promise<boolean>) | undefined;
  readonly #seat: TurnSeat | undefined;
  /** One of its jobs makes a video. */
  #makesVideo = false;
  /** Why the process ends, where it is not its fault: we killed it, and the next one starts at once, or it found an invalid checkpoint. */
  #expectedExit: 'kill' | 'invalid' | undefined;
  /** Reads of a checkpoint in a row that was invalid. Undefined before one was served, and for an engine on demand: its user is told. */
  #invalidReads: number | undefined;

  constructor(options: EngineOptions<W>) {
    this.spec = options.spec;
    // A resident engine is on its way from the beginning; one on demand is not.
    this.state = options.kind === 'on-demand' ? 'stopped' : 'starting';
    this.#options = options;
    this.#seat = options.turns?.join();
    const { model } = options.spec;
    const engine = engineName(options.spec);
    this.#log = options.log.child({ model, ...(engine !== model && { engine }) });
    this.#backoff = createBackoff(options.backoffMs ?? { initial: 500, max: 60_000 });
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get residentBytes(): number | undefined {
    return this.#memory('VmRSS');
  }

  get peakBytes(): number | undefined {
    return this.#memory('VmHWM');
  }

  #memory(field: 'VmRSS' | 'VmHWM'): number | undefined {
    try {
      const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
      const kilobytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
      return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
    } catch {
      return undefined; // no such file system here, or the process just ended
    }
  }

  start(): Promise<void> {
    this.failure = undefined;
    this.#startCrashes = 0;
    this.#invalidReads = undefined;
    this.#setState('starting');
    this.#spawn();
    return this.whenReady();
  }

  whenReady(signal?: AbortSignal): Promise<void> {
    return this.#when(() => this.state === 'ready' || this.state === 'busy', signal);
  }

  async whenDescribed(signal?: AbortSignal): Promise<W['info']> {
    await this.#when(() => this.info !== undefined, signal);
    return this.info as W['info'];
  }

  #when(holds: () => boolean, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        this.#listeners.delete(look);
        signal?.removeEventListener('abort', abort);
        settle();
      };
      const abort = () => end(() => reject(InferenceError.from(signal?.reason)));
      const look = () => {
        if (holds()) end(resolve);
        else if (this.state === 'failed') end(() => reject(this.failure));
        else if (this.state === 'stopped') end(() => reject(new InferenceError('DRAINING', 'the engine was stopped')));
      };
      if (signal?.aborted) return abort();
      this.#listeners.add(look);
      signal?.addEventListener('abort', abort);
      look();
    });
  }

  get #isOnDemand(): boolean {
    return this.#options.kind === 'on-demand';
  }

  run(jobs: readonly W['job'][]): readonly RunHandle<W>[] {
    if (this.state !== 'ready' && !(this.#isOnDemand && this.state === 'busy')) {
      throw new InferenceError('ENGINE_STARTING', `model ${this.spec.model} is ${this.state}, not ready for a job`, {
        retryAfterMs: 1000,
      });
    }
    const handles = jobs.map(({ jobId }): RunHandle<W> => {
      const events = new EventQueue<W['event']>();
      const result = new Promise<W['result']>((resolve, reject) => {
        this.#jobs.set(jobId, { jobId, events, resolve, reject });
      });
      // A caller that iterates the events may not have awaited the result yet.
      result.catch(() => undefined);
      return { events, result, cancel: (reason) => this.#cancel(jobId, reason) };
    });
    this.#makesVideo = jobs.some((job) => 'output' in job && (job as unknown as EngineJob).output.video !== undefined);
    this.#setState('busy');
    this.#watchForHang();
    this.#send({ kind: 'run', jobs });
    return handles;
  }

  onStateChange(listener: (state: EngineState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onMemoryRequest(free: () => Promise<boolean>): void {
    this.#freeMemory = free;
  }

  async stop(): Promise<void> {
    clearTimeout(this.#restartTimer);
    const child = this.#child;
    this.#setState('stopped');
    this.#endJobs(new InferenceError('DRAINING', 'the server is stopping', { retryAfterMs: 5000 }));
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    this.#send({ kind: 'shutdown' });
    const timer = setTimeout(() => killGroup(child), STOP_GRACE_MS);
    await exited;
    clearTimeout(timer);
  }

  #spawn(): void {
    const entry = this.#options.entry ?? new URL('./image-process.js', import.meta.url);
    const startedAt = Date.now();
    const child = this.#fork(entry);
    if (child === undefined) return;
    this.#child = child;
    for (const [name, stream] of [
      ['stdout', child.stdout],
      ['stderr', child.stderr],
    ] as const) {
      if (stream)
        createInterface({ input: stream }).on('line', (line) =>
          this.#log.debug({ stream: name, line }, 'engine output'),
        );
    }
    const startTimer = setTimeout(
      () => {
        this.#log.error('engine did not become ready in time');
        this.kills.start += 1;
        killGroup(child);
      },
      this.#options.startTimeoutMs ?? 30 * 60_000,
    );
    child.on('message', (message) => {
      const { kind } = message as MessageFromEngine<W>;
      if (kind === 'ready' || kind === 'start-failed') clearTimeout(startTimer);
      if (this.#child === child) this.#onMessage(message as MessageFromEngine<W>);
    });
    child.on('error', (error) => {
      this.#log.error({ err: error }, 'engine process error');
    });
    child.on('exit', (code, signal) => {
      clearTimeout(startTimer);
      // Programs that it started, such as ffmpeg, end with it.
      killGroup(child);
      if (this.#child === child) this.#onExit(code, signal, Date.now() - startedAt);
    });
    this.#send({ kind: 'start', spec: this.spec });
  }

  /** @returns undefined where no process could be made now, for example without a free file descriptor: it is tried again */
  #fork(entry: URL): ChildProcess | undefined {
    try {
      const child = fork(entry, {
        serialization: 'advanced',
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
        env: { ...CARD_ORDER, ...withoutSecrets(environment()), ...this.#options.env },
        // The leader of a process group: its programs end with it, even one that hangs.
        detached: true,
      });
      if (child.pid !== undefined) return child;
      child.on('error', (error) => this.#failToFork(error));
    } catch (error) {
      this.#failToFork(error);
    }
    return undefined;
  }

  /** Not the checkpoint's fault: it counts as no crash. */
  #failToFork(error: unknown): void {
    this.#log.error({ err: error }, 'engine process could not be started');
    if (this.state === 'stopped' || this.state === 'failed') return;
    if (this.#isOnDemand) {
      const { message } = InferenceError.from(error);
      this.failure = new InferenceError(
        'ENGINE_CRASHED',
        `the engine of model ${this.spec.model} could not be started: ${message}; try again`,
        { retryAfterMs: 1000, cause: error },
      );
      this.#setState('failed');
      return;
    }
    this.#restartTimer = setTimeout(() => this.#spawn(), this.#backoff.next());
  }

  #onMessage(message: MessageFromEngine<W>): void {
    switch (message.kind) {
      case 'loading':
        this.loading = { stage: message.stage, fraction: message.fraction };
        this.#tellListeners();
        return;
      case 'ready':
        this.info = message.info;
        this.device = message.device;
        this.loading = undefined;
        this.#startCrashes = 0;
        if (!this.#isOnDemand) this.#invalidReads = 0;
        for (const { provider, detail } of message.rejected)
          this.#log.info({ provider, detail }, 'provider does not open');
        if (message.info.unused.length > 0) {
          const { unused } = message.info;
          this.#log.info(
            { keys: unused.slice(0, MAX_KEYS_LOGGED), count: unused.length },
            'keys of the checkpoint are not used',
          );
        }
        for (const { network, precision, reason } of message.info.precisions ?? []) {
          if (reason !== undefined) this.#log.warn({ network, precision, reason }, 'network computes in a wider type');
        }
        if (message.runtime?.reason !== undefined)
          this.#log.warn({ reason: message.runtime.reason }, 'native runtime does not open: the Node binding is used');
        this.#log.info(
          {
            device: message.device,
            runtime: message.runtime?.name,
            ms: Math.round(message.loadMs),
            enginePid: this.pid,
          },
          'engine ready',
        );
        this.#setState('ready');
        return;
      case 'start-failed':
        this.#failToStart(InferenceError.fromJSON(message.error));
        return;
      case 'request-turn':
        // Waiting for another engine is no hang.
        clearTimeout(this.#hangTimer);
        this.#seat?.request(() => this.#giveTurn(), this.#makesVideo);
        if (this.#seat === undefined) this.#giveTurn();
        return;
      case 'end-turn':
        this.#seat?.end();
        return;
      case 'info':
        // A process that loads knows less than the one before it measured.
        this.info = { ...this.info, ...message.info };
        this.#tellListeners();
        return;
      case 'warning':
        this.#log.warn({ problem: message.problem }, 'engine warns');
        return;
      case 'request-memory':
        void this.#answerMemoryRequest(message.request);
        return;
      case 'event':
        this.#watchForHang();
        this.#jobs.get(message.jobId)?.events.push(message.event);
        return;
      case 'done':
        this.#endJob(message.jobId, message.result);
        break;
      case 'failed':
        this.#endJob(message.jobId, InferenceError.fromJSON(message.error));
        break;
      case 'outdated':
        this.#log.warn({ file: message.file }, 'checkpoint was replaced: engine restarts');
        this.#setState('restarting');
        this.#endJobs(InferenceError.fromJSON(message.error));
        this.#killToRestart();
        return;
    }
    if (this.#jobs.size > 0) return;
    this.#seat?.leave();
    if (this.state === 'busy') this.#setState('ready');
  }

  #failToStart(failure: InferenceError): void {
    const { reason, message: problem } = failure;
    if (reason === 'CHECKPOINT_INVALID' && this.#invalidReads !== undefined && this.#invalidReads < MAX_INVALID_READS) {
      this.#invalidReads += 1;
      this.#expectedExit = 'invalid';
      this.#log.warn(
        { reason, problem },
        'engine cannot start: the checkpoint that replaced the one before is read again',
      );
      return;
    }
    this.failure = failure;
    this.#log.error({ reason, problem }, 'engine cannot start');
    this.#setState('failed');
  }

  async #answerMemoryRequest(request: number): Promise<void> {
    const child = this.#child;
    const isFreed = (await this.#freeMemory?.().catch(() => false)) ?? false;
    this.#log.warn({ isFreed }, 'engine ran out of memory and asked for some');
    if (this.#child === child) this.#send({ kind: 'memory', request, isFreed });
  }

  #giveTurn(): void {
    this.#watchForHang();
    this.#send({ kind: 'turn' });
  }

  #onExit(code: number | null, signal: NodeJS.Signals | null, livedMs: number): void {
    this.#child = undefined;
    this.#seat?.leave();
    if (this.state === 'stopped' || this.state === 'failed') return;
    const expected = this.#expectedExit;
    this.#expectedExit = undefined;
    const wasLoading = this.state === 'starting' || this.state === 'restarting';
    this.loading = undefined;
    const how = signal === null ? `exited with code ${code}` : `was ended by ${signal}`;
    if (expected === undefined) this.#log.error({ code, signal, livedMs }, 'engine process died');
    const death = new InferenceError(
      'ENGINE_CRASHED',
      `the engine of model ${this.spec.model} ${how}; it restarts, try again`,
      { retryAfterMs: 1000 },
    );
    if (this.#isOnDemand) {
      this.failure = death;
      this.#setState('failed');
      this.#endJobs(death);
      return;
    }
    this.#setState('restarting');
    this.#endJobs(death);
    if (wasLoading && expected === undefined) this.#startCrashes += 1;
    if (this.#startCrashes >= MAX_START_CRASHES) {
      this.failure = new InferenceError(
        'ENGINE_CRASHED',
        `the engine of model ${this.spec.model} ${how} while loading, ${this.#startCrashes} times in a row; see the log, and darkroom doctor`,
      );
      this.#setState('failed');
      return;
    }
    if (livedMs >= HEALTHY_MS) this.#backoff.reset();
    this.#restartTimer = setTimeout(
      () => {
        this.restarts += 1;
        this.#spawn();
      },
      expected === 'kill' ? 0 : this.#backoff.next(),
    );
  }

  #cancel(jobId: string, reason = new InferenceError('CANCELLED', 'the job was cancelled')): void {
    const job = this.#jobs.get(jobId);
    if (job === undefined || job.cancelled !== undefined) return;
    job.cancelled = reason;
    this.#send({ kind: 'cancel', jobId });
    job.cancelTimer = setTimeout(() => {
      this.#log.warn({ jobId }, 'job did not end within the cancel bound: engine killed');
      this.#kill('cancel');
    }, this.#options.cancelBoundMs ?? 30_000);
  }

  #watchForHang(): void {
    clearTimeout(this.#hangTimer);
    if (this.#jobs.size === 0) return;
    const timeoutMs = this.#options.hangTimeoutMs ?? 10 * 60_000;
    this.#hangTimer = setTimeout(() => {
      this.#log.error({ jobIds: [...this.#jobs.keys()], timeoutMs }, 'engine hangs: killed');
      for (const job of this.#jobs.values()) {
        job.cancelled ??= new InferenceError(
          'ENGINE_HUNG',
          `the engine of model ${this.spec.model} said nothing for ${timeoutMs} ms; it restarts, try again`,
          { retryAfterMs: 1000 },
        );
      }
      this.#kill('hang');
    }, timeoutMs);
  }

  #kill(reason: KillReason): void {
    this.kills[reason] += 1;
    this.#killToRestart();
  }

  #killToRestart(): void {
    this.#expectedExit = 'kill';
    if (this.#child !== undefined) killGroup(this.#child);
  }

  #endJobs(error: InferenceError): void {
    for (const jobId of [...this.#jobs.keys()]) this.#endJob(jobId, error);
  }

  /** A cancelled job reports its cancel reason, even if it failed for another one. */
  #endJob(jobId: string, outcome: W['result'] | InferenceError): void {
    const job = this.#jobs.get(jobId);
    if (job === undefined) return;
    this.#jobs.delete(jobId);
    clearTimeout(job.cancelTimer);
    if (this.#jobs.size === 0) clearTimeout(this.#hangTimer);
    job.events.end();
    if (outcome instanceof InferenceError) job.reject(job.cancelled ?? outcome);
    else job.resolve(outcome);
  }

  #send(message: MessageToEngine<W>): void {
    // A process that just died is handled by its exit event.
    this.#child?.send(message, () => undefined);
  }

  #setState(state: EngineState): void {
    if (this.state === state) return;
    this.state = state;
    this.#tellListeners();
  }

  #tellListeners(): void {
    for (const listener of [...this.#listeners]) listener(this.state);
  }
}
