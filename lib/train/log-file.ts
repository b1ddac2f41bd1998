// A file that a run appends to while it goes on: writes happen behind, in order, and a failing disk delays them but never ends the run.
import { open, type FileHandle } from 'node:fs/promises';
import { toMiniGptError, type MiniGptError } from '../errors.js';

/** What waits for a disk that is full is dropped beyond this many bytes: some 30,000 steps. */
const MOST_WAITING = 16 * 1024 * 1024;

/**
 * Appends at a position of its own, so that a write that was cut short by a full disk is written over, not after, once there is room. After a
 * failure every append tries again.
 */
export class LogFile {
  #handle: FileHandle;
  #end: number;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;
  #failed = false;
  #dropped = 0;
  #onTrouble: (error: MiniGptError) => void;

  private constructor(handle: FileHandle, end: number, onTrouble: (error: MiniGptError) => void) {
    this.#handle = handle;
    this.#end = end;
    this.#onTrouble = onTrouble;
  }

  /**
   * `end`: bytes of the file that stay; what is behind them is cut off. `flags` as of fs.open. `onTrouble` is told the first failure.
   * Errors: those of opening and cutting.
   */
  static async open(
    path: string,
    flags: string | number,
    end: number,
    onTrouble: (error: MiniGptError) => void,
  ): Promise<LogFile> {
    const handle = await open(path, flags, 0o644);
    try {
      if ((await handle.stat()).size > end) await handle.truncate(end);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new LogFile(handle, end, onTrouble);
  }

  append(bytes: Uint8Array): void {
    if (this.#waitingBytes + bytes.length > MOST_WAITING) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#writing ??= this.#write().finally(() => (this.#writing = undefined));
  }

  /** Resolves with the number of appends that could not be written. */
  async close(): Promise<number> {
    await this.#writing;
    if (this.#waiting.length > 0) await this.#write();
    try {
      if (this.#waiting.length > 0) await this.#handle.truncate(this.#end); // no half of a record stays
    } catch (error) {
      this.#tell(error);
    }
    await this.#handle.close().catch((error: unknown) => this.#tell(error));
    return this.#dropped + this.#waiting.length;
  }

  async #write(): Promise<void> {
    try {
      while (this.#waiting.length > 0) {
        const count = this.#waiting.length;
        const bytes = Buffer.concat(this.#waiting);
        for (let done = 0; done < bytes.length;) {
          done += (await this.#handle.write(bytes, done, bytes.length - done, this.#end + done)).bytesWritten;
        }
        this.#end += bytes.length;
        this.#waiting.splice(0, count);
        this.#waitingBytes -= bytes.length;
      }
    } catch (error) {
      this.#tell(error);
    }
  }

  #tell(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#onTrouble(toMiniGptError(error));
  }
}
