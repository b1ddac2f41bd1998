// Writes a file aside in its folder and renames it into place when it is complete and on the disk: whatever fails, what was there stays.
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { abortedError, MiniGptError } from '../errors.js';

/** Bytes between two looks at the signal; also the most that one system call is asked for. */
const PIECE = 8 << 20;
let written = 0;
/** What a file is called until it is complete. */
const unfinished = /^(.+)\.part-\d+-\d+$/;

/** The file that `name` was to become; undefined for the name of a whole file. What a process leaves that is killed has such names. */
export const unfinishedOf = (name: string): string | undefined => unfinished.exec(name)?.[1];

/**
 * Puts a file of these bytes at `path`, in the place of what was there. Errors: ERR_FILE_NOT_FOUND (no such folder, a folder in its place),
 * ERR_FILE_READ (what the system says, such as a full disk), ERR_ABORTED; after each of them the part written so far is removed.
 */
export async function replaceFile(path: string, pieces: Iterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
  // beside the file, since a rename does not lead from one file system to another; other writers, here or elsewhere, have other names
  const aside = `${path}.part-${process.pid}-${++written}`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(aside, 'w');
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; at += PIECE) {
        if (signal?.aborted) throw abortedError(signal);
        await writeWhole(handle, piece.subarray(at, at + PIECE));
      }
    }
    await handle.sync();
    await handle.close();
    handle = undefined;
    if (signal?.aborted) throw abortedError(signal);
    await rename(aside, path);
  } catch (error) {
    await handle?.close().catch(() => {}); // it is removed, and the first error is the one that tells
    await rm(aside, { force: true }).catch(() => {}); // as above: a folder that is gone has no part left in it
    throw writeError(path, error);
  }
  await syncFolder(path);
}

async function writeWhole(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += (await handle.write(bytes, at)).bytesWritten;
}

/** The new name survives a power cut only once the folder is on the disk too. Windows opens no folders, and keeps names by itself. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  try {
    const folder = await open(dirname(path), 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    throw writeError(path, error);
  }
}

/** What the system said when `path` was to be written, as an error of ours. */
export function writeError(path: string, error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new MiniGptError('ERR_FILE_NOT_FOUND', `${path} cannot be written: there is no directory ${dirname(path)}`, {
      cause: error,
    });
  }
  if (code === 'EISDIR' || code === 'ENOTEMPTY' || code === 'EEXIST') {
    return new MiniGptError('ERR_FILE_NOT_FOUND', `${path} is a directory; expected the name of a file to write`, {
      cause: error,
    });
  }
  return new MiniGptError('ERR_FILE_READ', `${path} cannot be written: ${message}`, { cause: error });
}
