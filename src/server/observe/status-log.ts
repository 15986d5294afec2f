import type { EngineState } from '../../engine/engine.js';
import { engineName } from '../../engine/messages.js';
import type { Logger } from '../../log.js';
import type { Job } from '../jobs/job.js';
import { CardMemory } from './card-memory.js';
import { enginesOf, type ObservedServer, type ServerObserver } from './server-observer.js';

/** Time between two lines, in ms. */
const STATUS_MS = 60_000;

type Watched = ReturnType<typeof enginesOf>[number];

/** Logs the state of a server and its engines once a minute. */
export class StatusLog implements Partial<ServerObserver> {
  readonly #server: ObservedServer;
  readonly #log: Logger;
  readonly #card: CardMemory;
  readonly #timer: NodeJS.Timeout;
  /** Times when the engines became ready. */
  readonly #readyAt = new Map<Watched, number>();
  /** Numbers of jobs that ended, by model. */
  readonly #ended = new Map<string, number>();

  /** @param everyMs default: a minute */
  constructor(server: ObservedServer, log: Logger, everyMs = STATUS_MS) {
    this.#server = server;
    this.#log = log;
    this.#card = new CardMemory(server);
    for (const engine of enginesOf(server)) {
      engine.onStateChange((state) => this.#noteState(engine, state));
    }
    this.#timer = setInterval(() => void this.#write(), everyMs);
    this.#timer.unref();
  }

  jobEnded({ model }: Job): void {
    this.#ended.set(model, (this.#ended.get(model) ?? 0) + 1);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #noteState(engine: Watched, state: EngineState): void {
    if (state !== 'ready' && state !== 'busy') this.#readyAt.delete(engine);
    else if (!this.#readyAt.has(engine)) this.#readyAt.set(engine, performance.now());
  }

  async #write(): Promise<void> {
    const card = await this.#card.measure().catch(() => undefined);
    const depths = this.#server.depths();
    const engines = enginesOf(this.#server).map((engine) => {
      const { spec, state, restarts, residentBytes } = engine;
      const { model } = spec;
      const readyAt = this.#readyAt.get(engine);
      return {
        model,
        engine: engineName(spec),
        state,
        uptimeSeconds: readyAt === undefined ? 0 : Math.round((performance.now() - readyAt) / 1000),
        jobs: this.#ended.get(model) ?? 0,
        restarts,
        residentBytes,
      };
    });
    const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);
    this.#log.info(
      {
        uptimeSeconds: Math.round(process.uptime()),
        running: sum(depths.map(({ running }) => running)),
        waiting: sum(depths.map(({ waiting, preparing }) => waiting + preparing)),
        residentBytes: process.memoryUsage.rss(),
        engines,
        ...(card && { cardUsedBytes: card.totalBytes - card.freeBytes, cardTotalBytes: card.totalBytes }),
      },
      'status',
    );
  }
}
