// Memory that this system has at hand: the host of a virtual machine takes what is free for a moment, and may give it back ten times
// more slowly than a model loads. A process that touches it and ends just before a load leaves it to the program that is measured.
import { abortedError } from '../errors.js';
import { unusedMemory } from './machine.js';
import { ScriptProcess } from './script-process.js';

/** Unused memory that is left alone: without any the system would drop files from its cache, which are to be loaded from there. */
const LEFT_BYTES = 2 ** 29;

/**
 * Touches `bytes`, less where less is unused, and frees them at once. Returns the milliseconds that it took; undefined where the
 * system does not tell what is unused. Errors: ERR_INTERNAL (the process ended early, or took longer than `limitMs`), ERR_ABORTED.
 */
export async function touchMemory(bytes: number, limitMs: number, signal: AbortSignal): Promise<number | undefined> {
  if (signal.aborted) throw abortedError(signal);
  const unused = unusedMemory();
  if (unused === undefined) return undefined;
  const touched = String(Math.max(0, Math.round(Math.min(bytes, unused - LEFT_BYTES))));
  const process = new ScriptProcess('touch-memory-process', 'the process that touches memory', signal, [touched]);
  try {
    return Number(await process.answer(limitMs));
  } finally {
    await process.close();
  }
}
