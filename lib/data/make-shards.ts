// Makes WebDataset shards from a list of pairs: `KEY.jpg` and `KEY.json` side by side, the same bytes from the same list every time.
import { realpath, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { MiniGptError, abortedError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';
import { replaceFile } from '../formats/replaced-file.js';
import { newManifest, readManifest, type BuildManifest } from './make-shards-manifest.js';
import { BuiltNames } from './make-shards-names.js';
import { checkBuildOptions, type BuildOptions } from './make-shards-options.js';
import { buildPair, type BuiltPair } from './make-shards-pair.js';
import { everyPair, findData, type DataPlace } from './every-pair.js';
import { mapAhead } from './map-ahead.js';
import { isUnusable } from './source.js';
import { TarWriter } from './tar-writer.js';

export type { BuildOptions, ResizeMode } from './make-shards-options.js';

export interface BuildResult {
  /** For the `storage` of a configuration. */
  storage: string;
  shards: number;
  pairs: number;
  /** Passed over, in this run and in those that it goes on from. */
  skipped: number;
  bytes: number;
}

const preparedAtOnce = 8;

/** What became of a pair of the list. */
type Prepared =
  { name: string; built: BuiltPair } | { name: string; reason: string } | { shard: string; problem: string };

/**
 * Errors: ERR_ARGUMENT (options; shards are there already; a run with other settings is to be gone on with), ERR_FILE_NOT_FOUND, ERR_FILE_READ,
 * ERR_FILE_FORMAT (no data set, no usable pair), ERR_ABORTED. Whole shards stay, and `resume` goes on after them; no part of another is left.
 */
export async function build(options: BuildOptions): Promise<BuildResult> {
  const checked = checkBuildOptions(options, 'build()');
  if (checked.signal?.aborted) throw abortedError(checked.signal);
  const names = new BuiltNames(checked.out);
  const place = await findData(checked.list, checked.format, checked.images);
  await refuseSource(place, names);
  const manifest = await begin(checked, names, place);
  if (!manifest.complete) await new Building(checked, names, place, manifest).run();
  const { shards, skipped } = manifest;
  return {
    storage: names.storage(shards.length),
    shards: shards.length,
    pairs: shards.reduce((sum, shard) => sum + shard.pairs, 0),
    skipped,
    bytes: shards.reduce((sum, shard) => sum + shard.bytes, 0),
  };
}

/** Errors: ERR_ARGUMENT: shards that are read would be written over. */
async function refuseSource(place: DataPlace, names: BuiltNames): Promise<void> {
  if (place.format !== 'webdataset') return;
  const real = (path: string) => realpath(path).catch(() => resolve(path));
  const read = new Set(await Promise.all(place.paths.map(real)));
  for (const { name } of await names.existing()) {
    const path = join(names.folder, name);
    if (read.has(await real(path)))
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${path} is read and would be written over: expected another folder for the new shards`,
      );
  }
}

/** Where to begin: anew, or after the whole shards of an earlier run. */
async function begin(options: BuildOptions, names: BuiltNames, place: DataPlace): Promise<BuildManifest> {
  const anew = await newManifest(options, place);
  const earlier = options.resume ? await readManifest(names.manifest, anew) : undefined;
  const there = await names.existing();
  if (earlier) {
    for (const { name } of earlier.shards) {
      if (there.some((shard) => shard.name === name)) continue;
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${names.manifest} names the shard ${name}, which is not there; --force begins anew`,
      );
    }
    return earlier;
  }
  if (there.length > 0 && !options.force) {
    const more = there.length > 1 ? ` and ${there.length - 1} more` : '';
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${names.folder} has shards already (${there[0]!.name}${more}): expected a folder without; --force replaces them` +
        (options.resume ? '' : ', --resume goes on with a run that was cut short'),
    );
  }
  await makeFolders(names.folder);
  return anew;
}

class Building {
  readonly #options: BuildOptions;
  readonly #names: BuiltNames;
  readonly #place: DataPlace;
  readonly #manifest: BuildManifest;
  #pairs: number;
  #tar: TarWriter | undefined;
  #inShard = 0;
  /** Pairs of the list that are behind with the current shard. */
  #behind: number;
  #skipped: number;

  constructor(options: BuildOptions, names: BuiltNames, place: DataPlace, manifest: BuildManifest) {
    this.#options = options;
    this.#names = names;
    this.#place = place;
    this.#manifest = manifest;
    this.#pairs = manifest.shards.reduce((sum, shard) => sum + shard.pairs, 0);
    this.#behind = manifest.behind;
    this.#skipped = manifest.skipped;
  }

  async run(): Promise<void> {
    const { signal, onSkip, onProgress, pairsPerShard = 10_000, shardSize = Infinity } = this.#options;
    await this.#note(false); // from the first shard on there is something to go on with
    try {
      for await (const prepared of this.#prepared()) {
        if (signal?.aborted) throw abortedError(signal);
        if ('shard' in prepared) {
          onSkip?.(prepared.shard, prepared.problem);
          continue;
        }
        this.#behind++;
        if ('reason' in prepared) {
          this.#skipped++;
          onSkip?.(prepared.name, prepared.reason);
          continue;
        }
        await this.#add(prepared.built);
        if (this.#inShard >= pairsPerShard || this.#tar!.bytes >= shardSize) await this.#finishShard();
        onProgress?.(this.#pairs, this.#manifest.shards.length + (this.#tar ? 1 : 0));
      }
      if (this.#tar) await this.#finishShard();
    } catch (error) {
      await this.#tar?.discard();
      throw error;
    }
    if (this.#manifest.shards.length === 0) {
      await rm(this.#names.manifest, { force: true });
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${this.#options.list}: expected at least one usable pair, found none (${this.#skipped} were passed over)`,
      );
    }
    // of an earlier, longer run that this one replaces
    for (const { name, index } of await this.#names.existing())
      if (index >= this.#manifest.shards.length) await rm(join(this.#names.folder, name));
    await this.#note(true);
  }

  async *#prepared(): AsyncGenerator<Prepared, void, void> {
    const { signal } = this.#options;
    const start = this.#manifest.behind;
    const pairs = everyPair(this.#place);
    const source = async function* () {
      let index = 0;
      for await (const met of pairs) {
        if (signal?.aborted) throw abortedError(signal);
        if ('shard' in met || index++ >= start) yield met;
      }
    };
    yield* mapAhead(source(), preparedAtOnce, async (met): Promise<Prepared> => {
      if ('shard' in met) return met;
      try {
        return { name: met.name, built: await buildPair(met, this.#options) };
      } catch (error) {
        if (!isUnusable(error)) throw error;
        return { name: met.name, reason: error.message };
      }
    });
  }

  async #add({ kind, picture, fields }: BuiltPair): Promise<void> {
    this.#tar ??= await TarWriter.open(this.#names.path(this.#manifest.shards.length));
    const key = String(this.#pairs).padStart(9, '0');
    await this.#tar.add(`${key}.${kind}`, picture);
    await this.#tar.add(`${key}.json`, Buffer.from(JSON.stringify({ ...fields, key })));
    this.#pairs++;
    this.#inShard++;
  }

  async #finishShard(): Promise<void> {
    const tar = this.#tar!;
    await tar.finish();
    const { shards } = this.#manifest;
    shards.push({ name: this.#names.name(shards.length), pairs: this.#inShard, bytes: tar.bytes });
    this.#tar = undefined;
    this.#inShard = 0;
    await this.#note(false);
  }

  async #note(complete: boolean): Promise<void> {
    Object.assign(this.#manifest, { behind: this.#behind, skipped: this.#skipped, complete });
    await replaceFile(this.#names.manifest, [Buffer.from(`${JSON.stringify(this.#manifest, undefined, 1)}\n`)]);
  }
}
