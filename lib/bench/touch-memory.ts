// Memory that this system has at hand: the host of a virtual machine takes what is free for a moment, and may give it back ten times
// more slowly than a model loads. A process that touches it and ends just before a load leaves it to the program that is measured.
import { fork } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { abortedError, MiniGptError } from '../errors.js';
import { unusedMemory } from './machine.js';

const EXTENSION = extname(fileURLToPath(import.meta.url)); // of the sources, or as built
/** Unused memory that is left alone: without any the system would drop files from its cache, which are to be loaded from there. */
const LEFT_BYTES = 2 ** 29;

/**
 * Touches `bytes`, less where less is unused, and frees them at once. Returns the milliseconds that it took; undefined where the
 * system does not tell what is unused. Errors: ERR_INTERNAL (the process ended early), ERR_ABORTED.
 */
export async function touchMemory(bytes: number, signal: AbortSignal): Promise<number | undefined> {
  if (signal.aborted) throw abortedError(signal);
  const unused = unusedMemory();
  if (unused === undefined) return undefined;
  const child = fork(
    fileURLToPath(new URL(`touch-memory-process${EXTENSION}`, import.meta.url)),
    [String(Math.max(0, Math.min(bytes, unused - LEFT_BYTES)))],
    { stdio: 'ignore' },
  );
  const end = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', end, { once: true });
  try {
    return await new Promise<number>((done, failed) => {
      let took: number | undefined;
      child.once('message', (ms) => {
        took = Number(ms);
        end();
      });
      child.once('error', (cause) =>
        failed(new MiniGptError('ERR_INTERNAL', `the process that touches memory: ${cause.message}`, { cause })),
      );
      child.once('exit', (code, by) => {
        if (took !== undefined) return done(took);
        if (signal.aborted) return failed(abortedError(signal));
        failed(
          new MiniGptError('ERR_INTERNAL', `the process that touches memory ended by ${by ?? `exit code ${code}`}`),
        );
      });
    });
  } finally {
    signal.removeEventListener('abort', end);
  }
}
