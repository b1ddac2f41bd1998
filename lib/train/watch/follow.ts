// Reads a run's log as it grows.
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { LineCutter } from '../log-lines.js';
import { METRICS_FILE, parseMetricsLine } from '../metrics.js';
import { History } from './history.js';

const CHUNK = 1024 * 1024;

export class Follower {
  history = new History();
  #path: string;
  #cutter = new LineCutter();
  /** Bytes read; the file's number, to notice that another one took its place. */
  #read = 0;
  #file: number | undefined;
  #refreshing: Promise<void> | undefined;

  constructor(folder: string) {
    this.#path = join(folder, METRICS_FILE);
  }

  /** Reads what is new. A log that is not there yet has nothing new. Errors: those of reading. */
  refresh(): Promise<void> {
    return (this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined)));
  }

  async #refresh(): Promise<void> {
    let handle;
    try {
      handle = await open(this.#path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      if (this.#file !== undefined) this.#restart();
      this.#file = undefined;
      return;
    }
    let cut: boolean;
    try {
      const { ino, size } = await handle.stat();
      if (this.#file !== undefined && (this.#file !== ino || size < this.#read)) this.#restart();
      this.#file = ino;
      cut = await this.#readFrom(handle, size);
    } finally {
      await handle.close();
    }
    if (!cut) return;
    this.#restart();
    await this.#refresh();
  }

  /** True: what comes does not follow what was read, so the log was cut and has grown beyond that place since. */
  async #readFrom(handle: FileHandle, size: number): Promise<boolean> {
    const whole = this.#read === 0; // what does not fit even so is left out
    const bytes = Buffer.alloc(Math.min(CHUNK, Math.max(1, size - this.#read)));
    for (;;) {
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, this.#read);
      if (bytesRead === 0) return false;
      this.#read += bytesRead;
      for (const text of this.#cutter.push(bytes.subarray(0, bytesRead))) {
        const line = parseMetricsLine(text);
        const fits = line !== undefined && this.history.add(line);
        if (!fits && !whole) return true;
      }
    }
  }

  #restart(): void {
    this.history = new History(this.history.generation + 1);
    this.#cutter = new LineCutter();
    this.#read = 0;
  }
}
