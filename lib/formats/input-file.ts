// A file that is read at positions: opening it says in one sentence when it can't be what anybody wants to read.
import { open, stat, type FileHandle } from 'node:fs/promises';
import { MiniGptError } from '../errors.js';
import { noteOpened } from './file-log.js';

/** The most that one system call is asked for: Linux reads at most 2 GiB - 4 KiB at once. */
const LARGEST_READ = 2 ** 30;

/** An open, regular, non-empty file of known size. */
export class InputFile {
  readonly path: string;
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.#handle = handle;
  }

  /** Errors: ERR_FILE_NOT_FOUND (no such file, a directory), ERR_FILE_READ, ERR_FILE_FORMAT (no byte in it), ERR_FILE_CHANGED (as noteOpened). */
  static async open(path: string): Promise<InputFile> {
    let handle: FileHandle | undefined;
    try {
      // Asked before opening: opening a pipe would wait for its writer.
      const found = await stat(path);
      if (found.isDirectory()) throw new MiniGptError('ERR_FILE_NOT_FOUND', `${path} is a directory; expected a file`);
      if (!found.isFile()) throw new MiniGptError('ERR_FILE_NOT_FOUND', `${path} is not a regular file`);
      handle = await open(path, 'r');
      // Of what was opened, which may be another file by now.
      const opened = await handle.stat({ bigint: true });
      if (opened.size === 0n) throw new MiniGptError('ERR_FILE_FORMAT', `${path} is empty (0 bytes)`);
      noteOpened(path, opened);
      return new InputFile(path, Number(opened.size), handle);
    } catch (error) {
      await handle?.close();
      throw systemError(path, error);
    }
  }

  /** `length` bytes from `position`. Errors: ERR_FILE_FORMAT (beyond the end), ERR_FILE_CHANGED (the file has shrunk). */
  async read(position: number, length: number): Promise<Buffer> {
    if (position < 0 || length < 0 || position + length > this.size) {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${this.path}: bytes ${position} to ${position + length} were asked for, the file has ${this.size}`,
      );
    }
    const bytes = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      let got: number;
      try {
        got = (await this.#handle.read(bytes, filled, Math.min(length - filled, LARGEST_READ), position + filled))
          .bytesRead;
      } catch (error) {
        throw systemError(this.path, error);
      }
      if (got === 0) {
        throw new MiniGptError(
          'ERR_FILE_CHANGED',
          `${this.path} ended at byte ${position + filled} while it was read; it had ${this.size} bytes when it was opened`,
        );
      }
      filled += got;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** What the system said about `path`, as an error of ours. */
export function systemError(path: string, error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new MiniGptError('ERR_FILE_NOT_FOUND', `${path}: no such file`, { cause: error });
  if (code === 'EISDIR')
    return new MiniGptError('ERR_FILE_NOT_FOUND', `${path} is a directory; expected a file`, { cause: error });
  return new MiniGptError('ERR_FILE_READ', `${path} cannot be read: ${message}`, { cause: error });
}
