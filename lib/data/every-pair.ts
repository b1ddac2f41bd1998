// Every pair of a data set once and in its order, those that training would pass over too: for checking, copying and describing data sets.
import { readdir, stat } from 'node:fs/promises';
import { basename, extname, join, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { InputFile, systemError } from '../formats/input-file.js';
import { nearest } from '../nearest.js';
import { readCcSbuAlign } from './cc-sbu-align.js';
import { readList } from './list.js';
import { readPictureFile, type ListedPair } from './listed.js';
import { readLlava } from './llava.js';
import type { DataFormat, DatasetConfig } from './options.js';
import type { Turn } from './pair.js';
import { openShard, readShardEntry, type ShardEntry, type ShardFile } from './shard.js';
import { shardNames } from './shard-names.js';
import { maxPictureBytes } from './source.js';

export const dataFormats = ['webdataset', 'cc_sbu_align', 'llava', 'list'] as const satisfies DataFormat[];

/** 'missing' and 'broken' are pictures, 'entry' the list's line or the shard's members, 'turns' a conversation's order. */
export type ProblemAbout = 'missing' | 'broken' | 'caption' | 'entry' | 'turns';

/** A pair as the data set names it. */
export interface MetPair {
  /** '00003.tar/000012', '1047': within the data set. */
  name: string;
  /** What is wrong with it, where its place in the data set tells already. */
  problem?: { about: ProblemAbout; reason: string };
  /** The texts, where a list has them: then only the picture is left to read. */
  turns?: Turn[];
  /** The picture's file and the texts. Errors: ERR_FILE_FORMAT (the problem), and reading's. */
  read(): Promise<{ picture: Uint8Array; turns: Turn[] }>;
  /** The picture's file alone, which may be fine where the caption is not. Errors: as read(). */
  readPicture(): Promise<Uint8Array>;
}

/** A whole shard that gave less than it should. */
export interface MetShard {
  shard: string;
  problem: string;
}

export interface DataPlace {
  format: DataFormat;
  /** The shards' paths, or the one file or folder. */
  paths: string[];
  images?: string;
}

/**
 * What kind of data set lies at `path`: shards by a pattern, a tar, a folder of tars, a cc_sbu_align folder, a LLaVA JSON file, a CSV or JSONL list.
 *
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT (none of them), ERR_ARGUMENT (no such format, a wrong pattern).
 */
export async function findData(path: string, format?: string, images?: string): Promise<DataPlace> {
  const known = format === undefined ? await recognise(path) : formatNamed(format);
  const place: DataPlace = {
    format: known,
    paths: [resolve(path)],
    ...(images === undefined ? {} : { images: resolve(images) }),
  };
  if (known !== 'webdataset') return place;
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) {
    const tars = (await readdir(path)).filter((name) => name.toLowerCase().endsWith('.tar')).sort();
    if (tars.length === 0)
      throw new MiniGptError('ERR_FILE_FORMAT', `${path}: expected shards *.tar in the folder, found none`);
    place.paths = tars.map((name) => join(path, name));
  } else {
    // a file whose own name has braces is itself
    place.paths = found ? [path] : shardNames(path);
    if (place.paths.length === 1 && !found)
      throw new MiniGptError('ERR_FILE_NOT_FOUND', `${place.paths[0]}: no such file`);
  }
  return place;
}

function formatNamed(name: string): DataFormat {
  const format = dataFormats.find((known) => known === name);
  if (format) return format;
  const meant = nearest(name, dataFormats);
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `format: expected one of ${dataFormats.join(', ')}, found ${JSON.stringify(name)}${meant ? ` (did you mean ${meant}?)` : ''}`,
  );
}

async function recognise(path: string): Promise<DataFormat> {
  let found;
  try {
    found = await stat(path);
  } catch (error) {
    if (/[{}]|::/.test(path)) return 'webdataset';
    throw systemError(path, error);
  }
  if (found.isDirectory()) {
    const names = await readdir(path);
    if (names.includes('filter_cap.json')) return 'cc_sbu_align';
    if (names.some((name) => name.toLowerCase().endsWith('.tar'))) return 'webdataset';
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: expected a folder with filter_cap.json (cc_sbu_align) or with shards *.tar, found ` +
        (names.length === 0 ? 'an empty one' : names.sort().slice(0, 5).join(', ') + (names.length > 5 ? ', …' : '')),
    );
  }
  const ending = extname(path).toLowerCase();
  if (ending === '.tar') return 'webdataset';
  return ending === '.json' ? 'llava' : 'list';
}

/** Errors: those of the readers of a list as a whole; a shard that cannot be read is told as a MetShard. */
export async function* everyPair(place: DataPlace): AsyncGenerator<MetPair | MetShard, void, void> {
  if (place.format !== 'webdataset') {
    for (const pair of await readPairs(place)) yield metListed(pair);
    return;
  }
  for (const path of place.paths) {
    const { bytes, entries, problem } = await openShard(path);
    const name = basename(path);
    for (const entry of entries) yield metEntry({ path, bytes }, name, entry);
    if (problem !== undefined) yield { shard: name, problem };
  }
}

function readPairs({ format, paths, images }: DataPlace): Promise<ListedPair[]> {
  const config: DatasetConfig = {
    name: '',
    format,
    storage: paths[0]!,
    ...(images === undefined ? {} : { images }),
    batchSize: 1,
    sampleRatio: 1,
    shuffleBuffer: 0,
    holdout: 0,
  };
  if (format === 'cc_sbu_align') return readCcSbuAlign(config);
  return format === 'llava' ? readLlava(config) : readList(config);
}

function metListed(pair: ListedPair): MetPair {
  const { name, problem, turns } = pair;
  const readPicture = async () => {
    if (pair.picture === '') throw new MiniGptError('ERR_FILE_FORMAT', problem ?? 'has no picture');
    return readPictureFile(pair.picture);
  };
  return {
    name,
    ...(problem === undefined
      ? {}
      : { problem: { about: pair.picture === '' ? 'entry' : (pair.about ?? 'caption'), reason: problem } }),
    turns,
    readPicture,
    read: async () => {
      if (problem !== undefined) throw new MiniGptError('ERR_FILE_FORMAT', problem);
      return { picture: await readPicture(), turns };
    },
  };
}

function metEntry(file: ShardFile, shardName: string, entry: ShardEntry): MetPair {
  const { key, picture, problem } = entry;
  const wrongPicture = !picture || picture.size === 0 || picture.size > maxPictureBytes;
  const about = !picture ? 'missing' : wrongPicture ? 'broken' : !entry.caption ? 'caption' : 'entry';
  return {
    name: `${shardName}/${key}`,
    ...(problem === undefined ? {} : { problem: { about, reason: problem } }),
    read: () => readShardEntry(file, entry, undefined),
    readPicture: async () => {
      if (wrongPicture) throw new MiniGptError('ERR_FILE_FORMAT', problem ?? 'has no picture');
      const input = await InputFile.open(file.path);
      try {
        return await input.read(picture.offset, picture.size);
      } finally {
        await input.close();
      }
    },
  };
}
