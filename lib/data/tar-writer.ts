// Writes a tar file whose bytes depend on nothing but names and contents: no times, owners or padding of a clock. It appears under its
// name when it is whole.
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pack } from 'tar-stream';
import { MiniGptError } from '../errors.js';

/** Bytes collected between two writes. */
const chunkBytes = 1 << 20;

/** One tar file in the making. Await each call before the next. */
export class TarWriter {
  readonly path: string;
  /** Of what was added, without the tar's own headers. */
  bytes = 0;
  readonly #aside: string;
  readonly #file: FileHandle;
  readonly #pack = pack();
  #chunks: Buffer[] = [];
  #held = 0;

  private constructor(path: string, aside: string, file: FileHandle) {
    this.path = path;
    this.#aside = aside;
    this.#file = file;
    this.#pack.on('data', (chunk) => {
      this.#chunks.push(chunk as Buffer);
      this.#held += (chunk as Buffer).length;
    });
  }

  /** Errors: ERR_FILE_NOT_FOUND (no such folder), ERR_FILE_READ (the system's words). */
  static async open(path: string): Promise<TarWriter> {
    const aside = unfinishedName(path);
    try {
      return new TarWriter(path, aside, await open(aside, 'w'));
    } catch (error) {
      throw writeFailure(path, error);
    }
  }

  /** Errors: ERR_FILE_READ. */
  async add(name: string, contents: Uint8Array): Promise<void> {
    const bytes = Buffer.from(contents.buffer, contents.byteOffset, contents.byteLength);
    await new Promise<void>((resolve, reject) => {
      const header = { name, mtime: new Date(0), mode: 0o644, uid: 0, gid: 0, uname: '', gname: '' };
      this.#pack.entry(header, bytes, (error) => (error ? reject(error) : resolve()));
    });
    this.bytes += bytes.length;
    if (this.#held >= chunkBytes) await this.#write();
  }

  /** Gives the file its name. Errors: ERR_FILE_READ; nothing is left then, and what was there before stays. */
  async finish(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#pack.once('end', () => resolve()));
    this.#pack.finalize();
    await ended;
    await this.#write();
    try {
      await this.#file.sync();
      await this.#file.close();
      await rename(this.#aside, this.path);
      const folder = await open(dirname(this.path), 'r'); // the new name shall survive a power cut
      await folder.sync().finally(() => folder.close());
    } catch (error) {
      await this.discard();
      throw writeFailure(this.path, error);
    }
  }

  /** Removes what was written. Harmless after finish. */
  async discard(): Promise<void> {
    this.#pack.destroy();
    await this.#file.close().catch(() => {}); // it is closed already, or goes away all the same
    await rm(this.#aside, { force: true });
  }

  async #write(): Promise<void> {
    const bytes = Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#held = 0;
    try {
      await this.#file.writeFile(bytes); // from where the last write ended
    } catch (error) {
      await this.discard();
      throw writeFailure(this.path, error);
    }
  }
}

/** The name that a tar has until it is whole. */
export const unfinishedName = (path: string): string => `${path}.unfinished`;

/** What the system said when `path` was to be written, as an error of ours. */
export function writeFailure(path: string, error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new MiniGptError('ERR_FILE_NOT_FOUND', `${path} cannot be written: there is no directory ${dirname(path)}`, {
      cause: error,
    });
  }
  const why = code === 'ENOSPC' || code === 'EDQUOT' ? 'the disk is full' : message;
  return new MiniGptError('ERR_FILE_READ', `${path} cannot be written: ${why}`, { cause: error });
}
