import type { Config } from '../config/server-config.js';
import { type Device, deviceName } from '../device.js';
import { InferenceError } from '../errors.js';
import { measureMemory } from '../runtime/device-memory.js';
import { formatBytes } from '../std/format-bytes.js';
import type { Engine } from './engine.js';
import { MemoryLedger } from './memory-ledger.js';

/** What jobs take on a device together with their model, in bytes. */
export interface JobsMemory {
  /** Weights that are open between jobs. */
  readonly weightBytes: number;
  /** What stays open after the jobs: weights, and the peaks of what is open. */
  readonly restBytes: number;
  /** The most while they run. */
  readonly peakBytes: number;
  /** The same in the smallest batches and tiles. */
  readonly leastBytes: number;
}

/** An engine's place in the ledger of its device. */
interface Account {
  readonly engine: Engine;
  readonly ledger: MemoryLedger;
  /** What it holds, as computed: it only grows until the process ends. */
  heldBytes: number;
  /** LoRA variants. */
  variantBytes: number;
}

/** A grant for jobs of an engine. */
export interface JobsGrant {
  /** The prompts are encoded: what was open for them is released. */
  encoded(): void;
  /** The jobs ended. */
  end(): void;
}

/** The memory of every device that engines are on: what each engine holds, and what jobs and on-demand models were promised. */
export class DeviceLedgers {
  readonly #reserveBytes: number;
  readonly #ledgers = new Map<string, MemoryLedger>();
  readonly #accounts: readonly Account[];
  /** Memory of the devices, as far as it was measured. */
  readonly #totals = new Map<string, number>();

  constructor({ MEMORY_RESERVE_BYTES }: Pick<Config, 'MEMORY_RESERVE_BYTES'>, engines: readonly Engine[]) {
    this.#reserveBytes = MEMORY_RESERVE_BYTES;
    this.#accounts = engines.map((engine) => {
      const { device, deviceId = 0 } = engine.spec;
      const account: Account = {
        engine,
        ledger: this.#ledger(device, deviceId, engines),
        heldBytes: 0,
        variantBytes: 0,
      };
      engine.onStateChange((state) => {
        if (state === 'ready' || state === 'busy') return;
        [account.heldBytes, account.variantBytes] = [0, 0];
      });
      return account;
    });
  }

  /** The ledger of a device, for an on-demand model on it. */
  of(device: Device, deviceId: number): MemoryLedger {
    return this.#ledger(device, deviceId, this.neighbours(device, deviceId));
  }

  /** Engines that share the memory of a device. */
  neighbours(device: Device, deviceId: number): readonly Engine[] {
    return this.#accounts
      .map(({ engine }) => engine)
      .filter(({ spec }) => keyOf(device, deviceId) === keyOf(spec.device, spec.deviceId));
  }

  /** Memory that an engine holds on its device, computed, in bytes. 0 before its first job. */
  heldBytes(engine: Engine): number {
    const { heldBytes, variantBytes } = this.#account(engine);
    return heldBytes + variantBytes;
  }

  /** Records what the LoRA variants of an engine take. */
  setVariants(engine: Engine, bytes: number): void {
    this.#account(engine).variantBytes = bytes;
  }

  /**
   * Refuses a job that no engine of its model can ever run.
   * @throws InferenceError OUT_OF_MEMORY with the needed memory and the device's
   */
  assertCanFit(engines: readonly Engine[], { leastBytes }: JobsMemory): void {
    const short = engines.map((engine) => {
      const { device, deviceId } = engine.spec;
      const total = this.#totals.get(keyOf(device, deviceId)) ?? Number.POSITIVE_INFINITY;
      return { total, name: nameOf(engine), isShort: leastBytes > total };
    });
    const [first] = short;
    if (first === undefined || !short.every(({ isShort }) => isShort)) return;
    throw new InferenceError(
      'OUT_OF_MEMORY',
      `Insufficient VRAM for generation: the job needs at least ${formatBytes(leastBytes)}, ${first.name} has ${formatBytes(first.total)}; request a smaller size or fewer frames`,
    );
  }

  /**
   * Waits until an engine has the memory for jobs. What it holds from earlier ones is not asked for again.
   * @param measuredBytes largest memory that the process of a CPU engine is expected to take, from jobs that ended
   * @throws InferenceError OUT_OF_MEMORY with the needed and the free memory
   */
  async grant(
    engine: Engine,
    memory: JobsMemory,
    {
      measuredBytes = 0,
      signal,
    }: { readonly measuredBytes?: number | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<JobsGrant> {
    const account = this.#account(engine);
    // The weights of a loaded model are there before its first job.
    account.heldBytes = Math.max(account.heldBytes, memory.weightBytes);
    const held = this.#heldNow(account);
    const grant = await account.ledger.grantJobs(
      {
        bytes: Math.max(memory.peakBytes, measuredBytes) - held,
        leastBytes: memory.leastBytes - held,
        device: nameOf(engine),
        mayWait: () =>
          this.#accounts.some(
            (other) => other !== account && other.ledger === account.ledger && other.engine.state === 'busy',
          ),
      },
      signal,
    );
    return {
      encoded: () => grant.keep(Math.max(0, memory.restBytes - held)),
      end: () => {
        account.heldBytes = Math.max(account.heldBytes, memory.restBytes);
        grant.settle();
      },
    };
  }

  /** A process of the CPU keeps its peak; of a card nobody says what a process has, so it is computed. */
  #heldNow({ engine, heldBytes }: Account): number {
    return engine.device === 'cpu' ? (engine.peakBytes ?? heldBytes) : heldBytes;
  }

  #account(engine: Engine): Account {
    return this.#accounts.find((account) => account.engine === engine) as Account;
  }

  #ledger(device: Device, deviceId: number, engines: readonly Engine[]): MemoryLedger {
    const key = keyOf(device, deviceId);
    const known = this.#ledgers.get(key);
    if (known !== undefined) return known;
    const residents = engines.filter(({ spec }) => keyOf(spec.device, spec.deviceId) === key);
    const measure = async () => {
      const memory = await measureMemory(device, residents, deviceId);
      this.#totals.set(key, memory.totalBytes);
      return memory;
    };
    const ledger = new MemoryLedger({ measure, reserveBytes: this.#reserveBytes });
    this.#ledgers.set(key, ledger);
    void measure().catch(() => undefined);
    return ledger;
  }
}

/** Engines on the CPU share the machine's memory, whatever their index. */
function keyOf(device: Device, deviceId = 0): string {
  return device === 'cpu' ? device : deviceName('card', deviceId);
}

function nameOf({ spec, device = spec.device }: Engine): string {
  return deviceName(device, spec.deviceId ?? 0);
}
