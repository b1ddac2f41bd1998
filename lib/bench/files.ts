// The synthetic files of a run: each is written when it is first needed, and gone when nothing needs it any more, unless the folder is the user's.
import { constants, existsSync, statSync } from 'node:fs';
import { access, mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';

/** Something to be written. */
export interface PlannedFile {
  name: string;
  bytes: number;
  /** Relative to the path: where it is, the whole is there. Left out: the path itself. */
  last?: string;
  write(path: string, signal: AbortSignal): Promise<void>;
}

/** It cannot be measured here; the message says why, and the run goes on without it. */
export class DoesNotFit extends Error {}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
/** What a file system needs beside the bytes themselves. */
const DISK_MARGIN = 2 ** 26;
/** A file's header, names and vocabulary take less. */
const HEADER_LIMIT = 2 ** 24;

export class SyntheticFiles {
  readonly #folder: string;
  readonly #keep: boolean;
  readonly #signal: AbortSignal;
  readonly #tell: (line: string) => void;

  private constructor(folder: string, keep: boolean, tell: (line: string) => void, signal: AbortSignal) {
    this.#folder = folder;
    this.#keep = keep;
    this.#tell = tell;
    this.#signal = signal;
  }

  /** In `folder`, where files stay, or in a new one of the system's folder for temporary files. Error ERR_FILE_READ: it cannot be written. */
  static async in(
    folder: string | undefined,
    tell: (line: string) => void,
    signal: AbortSignal,
  ): Promise<SyntheticFiles> {
    if (folder === undefined)
      return new SyntheticFiles(await mkdtemp(join(tmpdir(), 'minigpt4-bench-')), false, tell, signal);
    await makeFolders(folder);
    await access(folder, constants.W_OK).catch((cause: Error) => {
      throw new MiniGptError('ERR_FILE_READ', `the folder ${folder} cannot be written: ${cause.message}`, { cause });
    });
    return new SyntheticFiles(resolve(folder), true, tell, signal);
  }

  /** The path of a file, which is written unless it is there in its size. Error DoesNotFit: the disk is too small. */
  async made({ name, bytes, last, write }: PlannedFile): Promise<string> {
    const path = join(this.#folder, name);
    if (last === undefined ? hasSize(path, bytes) : existsSync(join(path, last))) return path;
    await rm(path, { recursive: true, force: true });
    const { bavail, bsize } = await statfs(this.#folder);
    const free = bavail * bsize;
    if (free < bytes + DISK_MARGIN)
      throw new DoesNotFit(`${name} needs ${gigabytes(bytes)} of disk, and ${gigabytes(free)} are free`);
    this.#tell(`writing ${name} (${gigabytes(bytes)})`);
    try {
      await write(path, this.#signal);
    } catch (error) {
      await rm(path, { recursive: true, force: true });
      throw error;
    }
    return path;
  }

  async drop({ name }: PlannedFile): Promise<void> {
    if (!this.#keep) await rm(join(this.#folder, name), { recursive: true, force: true });
  }

  async end(): Promise<void> {
    if (!this.#keep) await rm(this.#folder, { recursive: true, force: true });
  }
}

/** A file of tensors that take `bytes`, as far as its size tells. */
function hasSize(path: string, bytes: number): boolean {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  return size !== undefined && size >= bytes && size < bytes + HEADER_LIMIT;
}

/** Error DoesNotFit: less memory is free than `what` takes. */
export function checkMemory(what: string, bytes: number): void {
  const free = process.availableMemory();
  if (free < bytes)
    throw new DoesNotFit(`${what} needs ${gigabytes(bytes)} of memory, and ${gigabytes(free)} are free`);
}
