// WebDataset shards: drawn with replacement, seeded by the process, their pairs mixed in a buffer of references; as the original, processes
// share nothing but the shards.
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { z } from 'zod';
import { randomState } from '../checked-state.js';
import { MiniGptError } from '../errors.js';
import { systemError } from '../formats/input-file.js';
import { Random } from '../random.js';
import { mapOf } from './in-parallel.js';
import type { DatasetConfig } from './options.js';
import type { SkippedPair } from './pair.js';
import { openShard, readShardEntry, type Shard, type ShardEntry, type ShardFile } from './shard.js';
import { shardNames } from './shard-names.js';
import { otherData, type DataSource, type Draw, type PairStream, type Reference, type StreamPlace } from './source.js';

/** Entries of shards whose indexes are kept: some 40 MB. */
const keptEntries = 100_000;
/** Unusable pairs in a row that end the run: two shards of img2dataset's size. */
const mostInRow = 20_000;
/**
 * Draws with replacement that surely meet what there is: one of n is missed in 20 n draws with a probability of e^-20. And never more than
 * 256 shards in a row, of which one in fifty would have been met with 99.4 %.
 */
const surely = 20;
const mostShards = 256;

/** The indexes of shards that were read of late, up to a number of entries. */
class ShardIndexes {
  readonly #kept = new Map<number, Promise<Shard>>();
  #entries = 0;

  constructor(readonly paths: readonly string[]) {}

  async get(number: number): Promise<Shard> {
    const kept = this.#kept.get(number);
    if (kept) {
      this.#kept.delete(number);
      this.#kept.set(number, kept); // the last of the map is the latest
      return kept;
    }
    const opening = openShard(this.paths[number]!);
    this.#kept.set(number, opening);
    const shard = await opening.catch((error: unknown) => {
      this.#kept.delete(number);
      throw error;
    });
    this.#entries += shard.entries.length + 1;
    for (const [oldest, index] of this.#kept) {
      if (this.#entries <= keptEntries || oldest === number) break;
      this.#kept.delete(oldest);
      this.#entries -= (await index).entries.length + 1;
    }
    return shard;
  }
}

const stateRules = z.object({
  shards: z.int(),
  content: z.string(),
  random: randomState,
  /** The shard that is read, and its next entry; -1: none yet. */
  shard: z.int().min(-1),
  next: z.int().min(0),
  drawn: z.int().min(0),
  /** Shard and entry of each reference in the buffer, one after the other. */
  buffer: z.array(z.int().min(0)),
  /** Shards whose problem has been told. */
  told: z.array(z.int().min(0)),
});

export class WebDataset implements DataSource {
  readonly #indexes: ShardIndexes;

  private constructor(
    readonly config: DatasetConfig,
    readonly paths: string[],
  ) {
    this.#indexes = new ShardIndexes(paths);
  }

  /** Errors: ERR_ARGUMENT (the pattern), ERR_FILE_NOT_FOUND (shards that are not there, counted). */
  static async open(config: DatasetConfig): Promise<WebDataset> {
    const paths = shardNames(config.storage);
    const missing: number[] = [];
    await mapOf(paths, 32, async (path, i) => {
      const found = await stat(path).catch((error: unknown) => {
        const failure = systemError(path, error);
        if (failure.code !== 'ERR_FILE_NOT_FOUND') throw failure;
      });
      if (!found?.isFile()) missing.push(i);
    });
    if (missing.length) {
      const firstMissing = paths[Math.min(...missing)]!;
      throw new MiniGptError(
        'ERR_FILE_NOT_FOUND',
        `the data set ${config.name}: ` +
          (paths.length === 1
            ? `there is no shard ${firstMissing}`
            : `${missing.length} of its ${paths.length} shards are not there, the first is ${firstMissing}`),
      );
    }
    return new WebDataset(config, paths);
  }

  /** The entries to train on: without those kept back. */
  async training(number: number): Promise<Shard> {
    const shard = await this.#indexes.get(number);
    if (this.config.holdout === 0 || number !== this.paths.length - 1) return shard;
    return { ...shard, entries: shard.entries.slice(0, Math.max(0, shard.entries.length - this.config.holdout)) };
  }

  reference(file: ShardFile, entry: ShardEntry): Reference {
    const name = `${this.config.name}/${basename(file.path)}/${entry.key}`;
    return { name, read: () => readShardEntry(file, entry, this.config.caption) };
  }

  /** Errors: ERR_ARGUMENT (a state of other shards). */
  async stream(place: StreamPlace): Promise<PairStream> {
    await this.holdout(); // that there are as many as are to be kept
    const stream = new ShardStream(this, place);
    if (place.state !== undefined) await stream.restore(place.state);
    return stream;
  }

  /** Errors: ERR_FILE_FORMAT (the last shard has fewer pairs), reading's. */
  async holdout(): Promise<Reference[]> {
    const { holdout, name } = this.config;
    if (holdout === 0) return [];
    const shard = await this.#indexes.get(this.paths.length - 1);
    if (shard.entries.length < holdout) {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `the data set ${name}: ${holdout} pairs are to be kept for validation, but its last shard ${shard.path} has ` +
          `${shard.entries.length}${shard.problem ? `: it ${shard.problem}` : ''}`,
      );
    }
    return shard.entries.slice(shard.entries.length - holdout).map((entry) => this.reference(shard, entry));
  }
}

/** Without the shard's other entries, which may be dropped meanwhile. */
interface Buffered {
  number: number;
  index: number;
  file: ShardFile;
  entry: ShardEntry;
}

function fileOf({ path, bytes }: Shard): ShardFile {
  return { path, bytes };
}

class ShardStream implements PairStream {
  readonly whole: string;
  /** Which shards these are, wherever they lie. */
  readonly #content: string;
  #random: Random;
  #open: { number: number; shard: Shard; next: number } | undefined;
  #buffer: Buffered[] = [];
  #drawn = 0;
  #told = new Set<number>();
  /** Pairs of each shard that was met: with all of them, how many there are. */
  readonly #sizes = new Map<number, number>();

  constructor(
    readonly data: WebDataset,
    { seed, rank }: StreamPlace,
  ) {
    this.#random = new Random(seed, 'shards', data.config.name, rank);
    this.whole = `the shards of ${data.config.storage}`;
    const names = data.paths.map((path) => basename(path));
    this.#content = createHash('sha256').update(JSON.stringify(names)).digest('hex').slice(0, 16);
  }

  begin(): void {}

  isHopeless(_: Draw, inRow: number): boolean {
    if (inRow > mostInRow) return true;
    if (this.#sizes.size < this.data.paths.length) return false;
    let all = 0;
    for (const size of this.#sizes.values()) all += size;
    return inRow > surely * all;
  }

  async draw(): Promise<Draw> {
    const skipped: SkippedPair[] = [];
    while (this.#buffer.length < Math.max(1, this.data.config.shuffleBuffer))
      this.#buffer.push(await this.#next(skipped));
    const at = this.#random.below(this.#buffer.length);
    const { file, entry } = this.#buffer[at]!;
    const last = this.#buffer.pop()!;
    if (at < this.#buffer.length) this.#buffer[at] = last;
    return { reference: this.data.reference(file, entry), ordinal: this.#drawn++, skipped };
  }

  /** The next entry of the open shard, or the first of one drawn anew. */
  async #next(skipped: SkippedPair[]): Promise<Buffered> {
    const { paths, config } = this.data;
    const reasons = new Map<number, string>();
    for (let inRow = 0; ; inRow++) {
      if (this.#open && this.#open.next < this.#open.shard.entries.length) {
        const { number, shard } = this.#open;
        const index = this.#open.next++;
        return { number, index, file: fileOf(shard), entry: shard.entries[index]! };
      }
      if (reasons.size === paths.length || inRow > mostShards) {
        const some = Array.from(reasons, ([number, reason]) => `${basename(paths[number]!)} ${reason}`);
        throw new MiniGptError(
          'ERR_FILE_FORMAT',
          `the data set ${config.name} (${config.storage}): no usable pair in ` +
            `${reasons.size === paths.length ? `any of its ${paths.length} shards` : `${inRow} shards in a row`}: ${some.slice(0, 3).join('; ')}`,
        );
      }
      const number = this.#random.below(paths.length);
      const shard = await this.data.training(number);
      this.#open = { number, shard, next: 0 };
      this.#sizes.set(number, shard.entries.length);
      if (shard.entries.length === 0)
        reasons.set(number, shard.problem ?? 'has only pairs that are kept for validation');
      if (shard.problem !== undefined && !this.#told.has(number)) {
        this.#told.add(number);
        skipped.push({
          dataset: config.name,
          name: `${config.name}/${basename(shard.path)}`,
          reason: shard.problem,
        });
      }
    }
  }

  state(): unknown {
    const state: z.infer<typeof stateRules> = {
      shards: this.data.paths.length,
      content: this.#content,
      random: this.#random.state as [number, number, number, number],
      shard: this.#open?.number ?? -1,
      next: this.#open?.next ?? 0,
      drawn: this.#drawn,
      buffer: this.#buffer.flatMap(({ number, index }) => [number, index]),
      told: [...this.#told],
    };
    return state;
  }

  async restore(state: unknown): Promise<void> {
    const { config, paths } = this.data;
    const parsed = stateRules.safeParse(state);
    if (!parsed.success)
      throw otherData(config.name, "a WebDataset's state", z.prettifyError(parsed.error).split('\n')[0]!);
    const { shards, content, random, shard, next, drawn, buffer, told } = parsed.data;
    if (shards !== paths.length) throw otherData(config.name, `${shards} shards`, String(paths.length));
    if (content !== this.#content) throw otherData(config.name, 'shards of the same names', 'others');
    const entryOf = async (number: number, index: number): Promise<Buffered> => {
      const found = number < paths.length ? await this.data.training(number) : undefined;
      const entry = found?.entries[index];
      if (!found || !entry) {
        const count = found
          ? `${found.entries.length}${found.problem ? ` (it ${found.problem})` : ''}`
          : 'no such shard';
        throw otherData(
          config.name,
          `more than ${index} pairs in the shard ${basename(paths[number] ?? String(number))}`,
          count,
        );
      }
      return { number, index, file: fileOf(found), entry };
    };
    for (let i = 0; i < buffer.length; i += 2) this.#buffer.push(await entryOf(buffer[i]!, buffer[i + 1] ?? -1));
    if (shard >= 0) {
      if (next > 0) await entryOf(shard, next - 1);
      else if (shard >= paths.length) throw otherData(config.name, 'a shard that is there', String(shard));
      this.#open = { number: shard, shard: await this.data.training(shard), next };
    }
    this.#random = Random.fromState(random);
    this.#drawn = drawn;
    this.#told = new Set(told);
  }
}
