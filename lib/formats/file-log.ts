// Remembers every file that a piece of work opens, so that it can be told whether one of them was changed meanwhile, or is the
// very file that is about to be written.
import { AsyncLocalStorage } from 'node:async_hooks';
import type { BigIntStats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { MiniGptError } from '../errors.js';

const current = new AsyncLocalStorage<FileLog>();

/** Tells the log of the work at hand, if it keeps one. Errors: ERR_FILE_CHANGED (opened before, and another file or another content since). */
export function noteOpened(path: string, found: BigIntStats): void {
  current.getStore()?.note(path, found);
}

export class FileLog {
  readonly #files = new Map<string, BigIntStats>();

  /** Does `work`; every InputFile that it opens is noted. */
  follow<Value>(work: () => Promise<Value>): Promise<Value> {
    return current.run(this, work);
  }

  note(path: string, found: BigIntStats): void {
    const before = this.#files.get(path);
    if (before) refuseChange(path, before, found);
    else this.#files.set(path, found);
  }

  /** The noted path of a file, by whatever path and links it is reached. */
  pathOf(file: BigIntStats): string | undefined {
    for (const [path, { dev, ino }] of this.#files) if (dev === file.dev && ino === file.ino) return path;
    return undefined;
  }

  /** Errors: ERR_FILE_CHANGED (a file is not what it was when it was opened, or is gone). */
  async check(): Promise<void> {
    for (const [path, before] of this.#files)
      refuseChange(path, before, await stat(path, { bigint: true }).catch(() => undefined));
  }
}

function refuseChange(path: string, before: BigIntStats, now: BigIntStats | undefined): void {
  const how =
    now === undefined
      ? 'was removed'
      : now.dev !== before.dev || now.ino !== before.ino
        ? 'was replaced by another file'
        : now.size !== before.size
          ? `had ${before.size} bytes and has ${now.size} now`
          : now.mtimeNs !== before.mtimeNs
            ? 'was written to'
            : undefined;
  if (how !== undefined)
    throw new MiniGptError('ERR_FILE_CHANGED', `${path} ${how} while it was read; expected it to stay as it was`);
}
