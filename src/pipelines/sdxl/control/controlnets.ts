import { LruMap } from '../../../std/lru-map.js';
import type { NetworkOpener } from '../../common/network-opener.js';
import type { RequestControl } from '../../pipeline.js';
import type { SdxlConfig } from '../model/config.js';
import { ControlNet } from './controlnet.js';

/** A job may use as many; others wait in memory for the next one, until it runs out. */
const KEPT = 2;

/** The ControlNets of a model, which its variants share. Those used last stay open. */
export class ControlNets {
  readonly #config: SdxlConfig;
  readonly #opener: NetworkOpener;
  readonly #nets = new LruMap<string, ControlNet>(Number.POSITIVE_INFINITY);

  constructor(config: SdxlConfig, opener: NetworkOpener) {
    this.#config = config;
    this.#opener = opener.forVariant();
  }

  /** @throws InferenceError for a file that cannot be read or does not fit the model */
  async get({ name, path, revision }: Pick<RequestControl, 'name' | 'path' | 'revision'>): Promise<ControlNet> {
    const key = `${revision} ${name}`;
    const known = this.#nets.get(key);
    if (known !== undefined) return known;
    const net = await ControlNet.open(path, this.#config, this.#opener);
    this.#nets.set(key, net);
    return net;
  }

  /** Releases those that were used longest ago. Call it while no job uses any. */
  async trim(): Promise<void> {
    while (this.#nets.size > KEPT) await this.#nets.takeOldest()?.release();
  }

  async release(): Promise<void> {
    while (this.#nets.size > 0) await this.#nets.takeOldest()?.release();
  }
}
