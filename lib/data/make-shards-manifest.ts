// Where the making of shards stands, written after each of them: from it a run that was cut short goes on, to the same bytes.
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { MiniGptError } from '../errors.js';
import { systemError } from '../formats/input-file.js';
import type { BuildOptions } from './make-shards-options.js';
import type { DataPlace } from './every-pair.js';

const manifestRules = z.object({
  version: z.literal(1),
  /** What decides about the shards' bytes. */
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.null()])),
  shards: z.array(z.object({ name: z.string(), pairs: z.int(), bytes: z.number() })),
  /** Pairs of the list that are behind: used or passed over. */
  behind: z.int(),
  skipped: z.int(),
  complete: z.boolean(),
});
export type BuildManifest = z.infer<typeof manifestRules>;

export async function newManifest(options: BuildOptions, place: DataPlace): Promise<BuildManifest> {
  return {
    version: 1,
    settings: {
      source: await digestOf(place),
      format: place.format,
      pairsPerShard: options.pairsPerShard ?? 10_000,
      shardSize: options.shardSize ?? null,
      resize: options.resize ?? null,
      resizeMode: options.resize === undefined ? null : (options.resizeMode ?? 'keep'),
      quality: options.quality ?? 95,
      maxPixels: options.maxPixels ?? null,
    },
    shards: [],
    behind: 0,
    skipped: 0,
    complete: false,
  };
}

/** The manifest of the run to go on with; undefined: there is none. Errors: ERR_FILE_FORMAT, ERR_FILE_READ, ERR_ARGUMENT (other settings or data). */
export async function readManifest(path: string, now: BuildManifest): Promise<BuildManifest | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw systemError(path, error);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const parsed = manifestRules.safeParse(value);
  if (!parsed.success)
    throw new MiniGptError('ERR_FILE_FORMAT', `${path}: expected the progress of an earlier run, found other contents`);
  for (const [key, setting] of Object.entries(now.settings)) {
    const before = parsed.data.settings[key];
    if (before === setting) continue;
    const difference =
      key === 'source'
        ? 'the list is not what it was'
        : `${key} was ${JSON.stringify(before)} and is ${JSON.stringify(setting)}`;
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${path}: expected to go on as the run began, but ${difference}; --force begins anew`,
    );
  }
  return parsed.data;
}

/** Of the names and sizes of the files that list the pairs, and the contents of a list itself. */
async function digestOf({ format, paths }: DataPlace): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) {
    const file = format === 'cc_sbu_align' ? join(path, 'filter_cap.json') : path;
    const { size } = await stat(file).catch((error: unknown) => {
      if (format === 'webdataset') return { size: -1 }; // a missing shard is passed over, and told
      throw systemError(file, error);
    });
    hash.update(JSON.stringify([basename(file), size]));
    if (format !== 'webdataset') hash.update(await readFile(file));
  }
  return hash.digest('hex').slice(0, 32);
}
