// A run's folder: where its checkpoints lie, which is the latest and which the best, and which are removed in time.
import { mkdir, readFile, readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { systemError } from '../formats/input-file.js';
import { replaceFile } from '../formats/replaced-file.js';

const pattern = /^checkpoint-(\d+)\.safetensors$/;

/** The digits keep listings in the order of steps. */
export const checkpointName = (step: number): string => `checkpoint-${String(step).padStart(6, '0')}.safetensors`;

/** `latest` and `best` are small texts that name a checkpoint beside them. */
type Pointer = 'latest' | 'best';

/** The original's name of a run: the minute it began in. */
export function jobId(now: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  return `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}${two(now.getHours())}${two(now.getMinutes())}`;
}

/** Makes a folder for a new run below `output`; a second run of the same minute gets a number. Errors: ERR_FILE_READ. */
export async function makeRunFolder(output: string, now: Date): Promise<string> {
  await makeFolder(output);
  for (let turn = 1; ; turn++) {
    const folder = join(output, turn === 1 ? jobId(now) : `${jobId(now)}-${turn}`);
    try {
      await mkdir(folder);
      return folder;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw folderError(folder, error);
    }
  }
}

/** A folder that the caller named: made where it is missing. Errors: ERR_ARGUMENT (another run's checkpoints are in it), ERR_FILE_READ. */
export async function takeRunFolder(folder: string): Promise<string> {
  await makeFolder(folder);
  if ((await checkpointsIn(folder)).length > 0) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${folder} holds the checkpoints of another run; expected a folder without (resuming goes on with them)`,
    );
  }
  return folder;
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw folderError(folder, error);
  }
}

function folderError(folder: string, error: unknown): MiniGptError {
  return new MiniGptError('ERR_FILE_READ', `the folder ${folder} cannot be made: ${(error as Error).message}`, {
    cause: error,
  });
}

/** Steps of the checkpoints in a folder, ascending. */
export async function checkpointsIn(folder: string): Promise<number[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    throw systemError(folder, error);
  });
  return names
    .flatMap((name) => pattern.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

/** Errors: those of replaceFile. */
export async function point(folder: string, pointer: Pointer, step: number): Promise<void> {
  await replaceFile(join(folder, pointer), [Buffer.from(`${checkpointName(step)}\n`)]);
}

/** The checkpoint's path that `latest` or `best` names; undefined where there is none. Errors: ERR_FILE_FORMAT, ERR_FILE_READ. */
export async function pointed(folder: string, pointer: Pointer): Promise<string | undefined> {
  const path = join(folder, pointer);
  let name: string;
  try {
    name = (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw systemError(path, error);
  }
  if (!pattern.test(name))
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: expected the name of a checkpoint, found ${JSON.stringify(name)}`,
    );
  return join(folder, name);
}

/**
 * Removes all checkpoints up to `step` but the last `keep` of them and the best. Later ones are of a run that went on from here before: they are
 * left alone.
 */
export async function removeOld(folder: string, keep: number, step: number): Promise<void> {
  const best = await pointed(folder, 'best');
  const spare = best === undefined ? undefined : basename(best);
  const old = (await checkpointsIn(folder)).filter((each) => each <= step).slice(0, -keep);
  for (const name of old.map(checkpointName)) if (name !== spare) await rm(join(folder, name), { force: true });
}

/**
 * The checkpoint that a user means: the file itself; a run's folder, or its `latest` or `best`; or a folder of runs, whose newest counts
 * ('latest' after --resume). Errors: ERR_FILE_NOT_FOUND.
 */
export async function findCheckpoint(path: string): Promise<string> {
  const found = await stat(path).catch((error: unknown) => {
    throw systemError(path, error);
  });
  if (!found.isDirectory()) {
    const name = basename(path);
    return name === 'latest' || name === 'best' ? ((await pointed(dirname(resolve(path)), name)) ?? path) : path;
  }
  const own = await latestIn(path);
  if (own !== undefined) return own;
  const runs = (await readdir(path, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const newest: { path: string; at: number }[] = [];
  for (const { name } of runs) {
    const latest = await latestIn(join(path, name));
    if (latest !== undefined) newest.push({ path: latest, at: (await stat(latest)).mtimeMs });
  }
  newest.sort((a, b) => b.at - a.at);
  if (newest[0]) return newest[0].path;
  throw new MiniGptError('ERR_FILE_NOT_FOUND', `${path}: expected a checkpoint to go on from, found none in it`);
}

/** A run's last checkpoint; the one with the most steps where the run ended before `latest` was written. */
async function latestIn(folder: string): Promise<string | undefined> {
  const latest = await pointed(folder, 'latest');
  if (latest !== undefined) return latest;
  const step = (await checkpointsIn(folder)).at(-1);
  return step === undefined ? undefined : join(folder, checkpointName(step));
}
