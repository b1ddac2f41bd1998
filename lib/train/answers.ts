// answers.jsonl in a run's folder: what each validation found, one line each, in the order of steps.
import { appendFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemError } from '../formats/input-file.js';
import { replaceFile } from '../formats/replaced-file.js';
import type { ValidationEvent } from './events.js';

export const ANSWERS_FILE = 'answers.jsonl';

/** Errors: ERR_FILE_READ, ERR_FILE_NOT_FOUND. */
export async function noteAnswers(
  folder: string,
  found: { step: number; loss: number | undefined; answers: ValidationEvent['answers'] },
): Promise<void> {
  const path = join(folder, ANSWERS_FILE);
  await appendFile(path, `${JSON.stringify(found)}\n`).catch((error: unknown) => {
    throw systemError(path, error);
  });
}

/**
 * Takes away what a run that goes on after `step` says again: lines of later steps, and half a line that a crash has cut off. Errors: those of
 * replaceFile, ERR_FILE_READ.
 */
export async function forgetAnswersAfter(folder: string, step: number): Promise<void> {
  const path = join(folder, ANSWERS_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw systemError(path, error);
  }
  const kept = text
    .split('\n')
    .slice(0, -1)
    .filter((line) => !(stepOf(line) > step));
  const wanted = kept.map((line) => `${line}\n`).join('');
  if (wanted !== text) await replaceFile(path, [Buffer.from(wanted)]);
}

/** NaN for a line of another kind, which is left alone. */
function stepOf(line: string): number {
  try {
    return Number((JSON.parse(line) as { step?: unknown } | null)?.step);
  } catch {
    return NaN;
  }
}
