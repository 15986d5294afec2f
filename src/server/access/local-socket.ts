import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A socket that only processes of the same user can open: its folder is theirs alone. */
export class LocalSocket {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async create(): Promise<LocalSocket> {
    return new LocalSocket(await mkdtemp(join(tmpdir(), 'darkroom-')));
  }

  /** As gRPC writes it. */
  get address(): string {
    return `unix:${join(this.#folder, 'server.sock')}`;
  }

  async remove(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }
}
