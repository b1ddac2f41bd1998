// A run's folder: where its checkpoints lie, which is the latest and which the best, and which are removed in time.
import type { Stats } from 'node:fs';
import { mkdir, readFile, readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { lockFolder } from '../formats/folder-lock.js';
import { systemError } from '../formats/input-file.js';
import { folderError, makeFolders } from '../formats/make-folders.js';
import { replaceFile, unfinishedOf } from '../formats/replaced-file.js';
import { ANSWERS_FILE } from './answers.js';

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
  await makeFolders(output);
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

/** A folder that a new run is to have. Errors: ERR_ARGUMENT (another run's checkpoints are in it), ERR_FILE_READ. */
export async function refuseUsed(folder: string): Promise<void> {
  if ((await checkpointsIn(folder)).length > 0) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${folder} holds the checkpoints of another run; expected a folder without (resuming goes on with them)`,
    );
  }
}

/** Files that a run writes aside before they get their name. */
const isOwn = (name: string): boolean =>
  pattern.test(name) || ['latest', 'best', 'config.yaml', ANSWERS_FILE].includes(name);

/**
 * Keeps others out of an existing folder until what it returns is called, and removes what a run that was killed there left unfinished.
 * Errors: ERR_ARGUMENT (another run is at work there), ERR_FILE_READ.
 */
export async function holdRunFolder(folder: string): Promise<() => Promise<void>> {
  const release = await lockFolder(folder, 'run.lock');
  try {
    for (const name of await namesIn(folder))
      if (isOwn(unfinishedOf(name) ?? '')) await rm(join(folder, name), { force: true });
    return release;
  } catch (error) {
    await release();
    throw systemError(folder, error);
  }
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: unknown) => {
    throw systemError(folder, error);
  });
}

/** Steps of the checkpoints in a folder, ascending. */
export async function checkpointsIn(folder: string): Promise<number[]> {
  return (await namesIn(folder))
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
 * ('latest' after --resume). `tell` hears where `latest` names a checkpoint that is gone, and the last one that is there is taken; without it
 * that is an error. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_FILE_READ.
 */
export async function findCheckpoint(path: string, tell?: (notice: string) => void): Promise<string> {
  const found = await statOf(path);
  if (!found.isDirectory()) {
    const [folder, name] = [dirname(resolve(path)), basename(path)];
    if (name === 'latest') return (await latestIn(folder, tell))?.path ?? path;
    return name === 'best' ? ((await pointed(folder, name)) ?? path) : path;
  }
  const own = await latestIn(path, tell);
  if (own) return own.path;
  const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
    throw systemError(path, error);
  });
  const newest: (Latest & { notices: string[] })[] = [];
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const notices: string[] = []; // those of other runs are nobody's concern here
    const latest = await latestIn(join(path, name), tell && ((notice) => notices.push(notice)));
    if (latest) newest.push({ ...latest, notices });
  }
  newest.sort((a, b) => b.at - a.at);
  for (const notice of newest[0]?.notices ?? []) tell?.(notice);
  if (newest[0]) return newest[0].path;
  throw new MiniGptError('ERR_FILE_NOT_FOUND', `${path}: expected a checkpoint to go on from, found none in it`);
}

/** The last checkpoint before this one in its folder; undefined where there is none, or `path` is none of a run. */
export async function checkpointBefore(path: string): Promise<string | undefined> {
  const found = pattern.exec(basename(path))?.[1];
  if (found === undefined) return undefined;
  const folder = dirname(resolve(path));
  const step = (await checkpointsIn(folder)).filter((each) => each < Number(found)).at(-1);
  return step === undefined ? undefined : join(folder, checkpointName(step));
}

/** A run's last checkpoint, and when it was written. */
interface Latest {
  path: string;
  at: number;
}

/** The checkpoint with the most steps where the run ended before `latest` was written. */
async function latestIn(folder: string, tell?: (notice: string) => void): Promise<Latest | undefined> {
  const latest = await pointed(folder, 'latest');
  const there = await checkpointsIn(folder);
  if (latest !== undefined && there.map(checkpointName).includes(basename(latest))) return dated(latest);
  const step = there.at(-1);
  const last = step === undefined ? undefined : join(folder, checkpointName(step));
  if (latest !== undefined) {
    const gone = `${join(folder, 'latest')} names ${basename(latest)}, which is not there`;
    if (last === undefined) throw new MiniGptError('ERR_FILE_NOT_FOUND', `${gone}, nor is any other checkpoint`);
    if (!tell) throw new MiniGptError('ERR_FILE_NOT_FOUND', `${gone}; expected it, found ${last} as the last one`);
    tell(`${gone}: ${basename(last)}, the last one that is, was taken`);
  }
  return last === undefined ? undefined : dated(last);
}

const dated = async (path: string): Promise<Latest> => ({ path, at: (await statOf(path)).mtimeMs });

async function statOf(path: string): Promise<Stats> {
  return stat(path).catch((error: unknown) => {
    throw systemError(path, error);
  });
}
