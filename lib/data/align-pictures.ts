// The pictures that stage-2 data is made of: a folder of them, a list of paths, one file, or the pictures of a data set; all or a random draw.
import { readFile, readdir, stat } from 'node:fs/promises';
import { dirname, extname, join, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { systemError } from '../formats/input-file.js';
import { Random } from '../random.js';
import { everyPair, findData } from './every-pair.js';

export interface FoundPicture {
  /** What people find it by. */
  name: string;
  /** Its file. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT, ERR_IMAGE. */
  read(): Promise<Uint8Array>;
}

const endings = ['.jpg', '.jpeg', '.png', '.webp', '.gif', '.avif', '.tif', '.tiff', '.svg', '.heic', '.bmp'];

/**
 * Pictures in their order; with `count` so many of them, drawn by `seed`: a larger count draws the same ones and more.
 *
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT (nothing there), ERR_ARGUMENT (fewer pictures than `count`).
 */
export async function* findPictures(
  path: string,
  count: number | undefined,
  seed: number,
): AsyncGenerator<FoundPicture, void, void> {
  let drawn: Set<number> | undefined;
  if (count !== undefined) {
    let total = 0;
    for await (const _ of everyPicture(path)) total++;
    if (total < count)
      throw new MiniGptError('ERR_ARGUMENT', `${path}: expected at least ${count} pictures, found ${total}`);
    drawn = new Set(new Random(seed, 'pictures').permutation(total).subarray(0, count));
  }
  let index = 0;
  for await (const found of everyPicture(path)) if (!drawn || drawn.has(index++)) yield found;
}

async function* everyPicture(path: string): AsyncGenerator<FoundPicture, void, void> {
  let found;
  try {
    found = await stat(path);
  } catch (error) {
    if (!/[{}]|::/.test(path)) throw systemError(path, error);
  }
  if (found?.isDirectory()) {
    const names = await readdir(path);
    if (!names.includes('filter_cap.json') && !names.some((name) => name.toLowerCase().endsWith('.tar'))) {
      const files = (await readdir(path, { recursive: true })).filter((name) =>
        endings.includes(extname(name).toLowerCase()),
      );
      if (files.length === 0) {
        throw new MiniGptError(
          'ERR_FILE_FORMAT',
          `${path}: expected pictures (${endings.join(', ')}) or a data set in the folder, found none`,
        );
      }
      for (const name of files.sort()) yield fileAt(name, join(path, name));
      return;
    }
  } else if (found && endings.includes(extname(path).toLowerCase())) {
    yield fileAt(path, path);
    return;
  } else if (found && extname(path).toLowerCase() === '.txt') {
    const lines = (await readFile(path, 'utf8')).replace(/^\ufeff/, '').split(/\r?\n/);
    const names = lines.map((line) => line.trim()).filter((line) => line !== '');
    if (names.length === 0)
      throw new MiniGptError('ERR_FILE_FORMAT', `${path}: expected a picture's path in each line, found none`);
    for (const name of names) yield fileAt(name, resolve(dirname(path), name));
    return;
  }
  for await (const met of everyPair(await findData(path)))
    if ('name' in met) yield { name: met.name, read: () => met.readPicture() };
}

function fileAt(name: string, path: string): FoundPicture {
  return {
    name,
    async read() {
      try {
        return await readFile(path);
      } catch (error) {
        throw systemError(path, error);
      }
    },
  };
}
