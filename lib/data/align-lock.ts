// One run at a time in a folder: two would describe the same pictures, under the same names.
import { open, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { writeFailure } from './tar-writer.js';

/** Of this process, whose number tells nothing: in containers every process has the same. */
const held = new Set<string>();

/**
 * Takes the folder; what it returns gives it back. The lock of a process that is gone is taken over. Errors: ERR_ARGUMENT (another run has it),
 * ERR_FILE_READ.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = resolve(join(folder, 'record.lock'));
  for (let attempt = 0; ; attempt++) {
    if (held.has(path)) throw taken(folder, 'of this process');
    try {
      const file = await open(path, 'wx');
      held.add(path);
      await file.writeFile(JSON.stringify({ host: hostname(), process: process.pid })).finally(() => file.close());
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        held.delete(path);
        throw writeFailure(path, error);
      }
    }
    const owner = await readOwner(path);
    if (owner && owner.host !== hostname())
      throw taken(folder, `on ${owner.host}; where that one has ended, remove ${path}`);
    if (attempt > 0 || (owner && owner.process !== process.pid && isAlive(owner.process)))
      throw taken(folder, `of process ${owner?.process}`);
    await rm(path, { force: true });
  }
  return async () => {
    held.delete(path);
    await rm(path, { force: true });
  };
}

const taken = (folder: string, whose: string) =>
  new MiniGptError('ERR_ARGUMENT', `${folder}: expected a folder that no other run works in, found one ${whose}`);

/** Undefined: it went away, or its writer was killed before it wrote. */
async function readOwner(path: string): Promise<{ host: string; process: number } | undefined> {
  try {
    const { host, process: id } = JSON.parse(await readFile(path, 'utf8')) as { host?: unknown; process?: unknown };
    return typeof host === 'string' && typeof id === 'number' ? { host, process: id } : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(id: number): boolean {
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
