// Makes a folder and those above it that are missing. The system's own recursive mkdir of Node 20 never ends where a parent that exists
// answers that it doesn't, as /proc does.
import { mkdir, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';

/** Harmless where the folder exists. Errors: ERR_FILE_READ with the system's reason; a file stands in the way of a folder. */
export async function makeFolders(path: string): Promise<void> {
  try {
    const missing: string[] = [];
    for (let at = resolve(path); !(await isFolder(at)); at = dirname(at)) {
      if (dirname(at) === at) throw new Error(`there is no ${at}`);
      missing.unshift(at);
    }
    for (const folder of missing) await makeFolder(folder);
  } catch (error) {
    throw folderError(path, error);
  }
}

/** What the system said when a folder was to be made, as an error of ours. */
export function folderError(folder: string, error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  return new MiniGptError('ERR_FILE_READ', `the folder ${folder} cannot be made: ${(error as Error).message}`, {
    cause: error,
  });
}

/** False where nothing is. Errors: the system's; something else has the name. */
async function isFolder(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  throw new Error(`${path} is no directory`);
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    // made by another process in the meantime; a link that leads nowhere has the name too
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !(await isFolder(path))) throw error;
  }
}
