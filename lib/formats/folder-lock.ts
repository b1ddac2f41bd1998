// One run at a time in a folder: two would write the same names, each over the other's.
import { open, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { MiniGptError } from '../errors.js';
import { writeError } from './replaced-file.js';

/** Milliseconds after which a lock that says nothing is of a process that was killed before it wrote. */
const writingTime = 100;
/** Of this process, whose number tells nothing: in containers every process has the same. */
const held = new Set<string>();

/**
 * Takes the folder by a file `name` in it; what it returns gives it back. The lock of a process that is gone is taken over. Errors: ERR_ARGUMENT
 * (another run has it), ERR_FILE_READ, ERR_FILE_NOT_FOUND (no such folder).
 */
export async function lockFolder(folder: string, name: string): Promise<() => Promise<void>> {
  const path = resolve(join(folder, name));
  for (let attempt = 0; ; attempt++) {
    if (held.has(path)) throw taken(folder, 'of this process');
    try {
      const file = await open(path, 'wx');
      held.add(path);
      await file.writeFile(JSON.stringify({ host: hostname(), process: process.pid })).finally(() => file.close());
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        if (held.delete(path)) await rm(path, { force: true });
        throw writeError(path, error);
      }
    }
    const owner = await readOwner(path);
    if (owner && owner.host !== hostname())
      throw taken(folder, `on ${owner.host}; where that one has ended, remove ${path}`);
    if (attempt > 0 || (owner && owner.process !== process.pid && isAlive(owner.process)))
      throw taken(folder, `of process ${owner?.process}; where that is none, remove ${path}`);
    await rm(path, { force: true });
  }
  return async () => {
    if (held.delete(path)) await rm(path, { force: true });
  };
}

const taken = (folder: string, whose: string) =>
  new MiniGptError('ERR_ARGUMENT', `${folder}: expected a folder that no other run works in, found one ${whose}`);

interface Owner {
  host: string;
  process: number;
}

/** Undefined: it went away, or its writer was killed before it wrote. */
async function readOwner(path: string): Promise<Owner | undefined> {
  const read = async (): Promise<Owner | undefined> => {
    try {
      const { host, process: id } = JSON.parse(await readFile(path, 'utf8')) as { host?: unknown; process?: unknown };
      return typeof host === 'string' && typeof id === 'number' ? { host, process: id } : undefined;
    } catch {
      return undefined;
    }
  };
  const owner = await read();
  if (owner) return owner;
  await pause(writingTime);
  return read();
}

function isAlive(id: number): boolean {
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
