// Frozen features kept on disk, so that epochs after the first skip the vision side.
//
//   FOLDER/0123456789abcdef/        digest of model, number type and size: other models' features are never met
//     rank0-0000.features           records of one size, little-endian numbers, nothing between them
//     rank0-0000.keys               'MGPTFEAT', the whole digest (32 bytes); then for each record, in order, its picture's key
//                                   (SHA-256, 32 bytes) and a CRC-32 over key and record (4 bytes, little-endian)
//
// A process writes into segments of its own, whose names it takes exclusively, and reads everybody's as they were when it opened the cache:
// no two write into one file. A key is written after its record, so what a crash cuts off is a record without a key or half a key, and is
// left out; what a failing disk damages, the CRC tells. The folder may be removed at any time between runs.
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { MiniGptError, toMiniGptError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';
import { SegmentWriter, readKeys, readRecord } from './feature-segment.js';
import { toHalf } from './half.js';

export interface FeatureCacheOptions {
  folder: string;
  /** Of everything that features depend on but the picture. */
  modelHash: string;
  /** Numbers of one picture: 32 x 768. */
  values: number;
  type: 'f16' | 'f32';
  rank: number;
  /** Told once of each thing that went wrong: damaged records, a full disk. Training goes on. */
  onProblem?: (problem: string) => void;
}

export interface FeatureCacheStats {
  /** Pictures whose features are known, this run's included. */
  records: number;
  hits: number;
  misses: number;
  written: number;
  /** Records that were found damaged when they were read; each is a miss too. */
  damaged: number;
  /** Records without a whole key, or keys without a whole record, left out at opening. */
  torn: number;
  /** Whether new features are still written. */
  writing: boolean;
}

export interface FeatureCache {
  /** Half-precision bits or float32, as the cache's type is. Errors: ERR_CLOSED. */
  get(key: string): Promise<Float32Array | Uint16Array | undefined>;
  /** Float32 is rounded for a half-precision cache. Never fails for the disk's sake. Errors: ERR_ARGUMENT (size, type, key), ERR_CLOSED. */
  put(key: string, features: Float32Array | Uint16Array): Promise<void>;
  stats(): FeatureCacheStats;
  /** After what is being written. */
  close(): Promise<void>;
}

/** Errors: ERR_ARGUMENT, and the system's where the folder can't be made or read. */
export async function openFeatureCache(options: FeatureCacheOptions): Promise<FeatureCache> {
  const { folder, modelHash, values, type } = options;
  if (!Number.isSafeInteger(values) || values < 1)
    throw new MiniGptError('ERR_ARGUMENT', `the feature cache: expected a whole number of values, found ${values}`);
  const identity = createHash('sha256')
    .update(JSON.stringify([modelHash, type, values]))
    .digest();
  const home = join(folder, identity.toString('hex', 0, 8));
  try {
    await makeFolders(home);
    const cache = new SegmentedCache(options, home, identity);
    await cache.readSegments();
    return cache;
  } catch (error) {
    const { code, message } = toMiniGptError(error);
    throw new MiniGptError(code, `the feature cache ${home} cannot be used: ${message}`, { cause: error });
  }
}

/** Where a record lies. `other`: the same picture's, written by another process, or anew. */
interface Place {
  segment: string;
  index: number;
  other?: Place;
}

class SegmentedCache implements FeatureCache {
  readonly #options: FeatureCacheOptions;
  readonly #recordBytes: number;
  readonly #places = new Map<string, Place>();
  readonly #stats = { hits: 0, misses: 0, written: 0, damaged: 0, torn: 0, writing: true };
  #writer: SegmentWriter | undefined;
  #writes: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(
    options: FeatureCacheOptions,
    readonly home: string,
    readonly identity: Uint8Array,
  ) {
    this.#options = options;
    this.#recordBytes = options.values * (options.type === 'f16' ? 2 : 4);
  }

  /** Errors: the system's. */
  async readSegments(): Promise<void> {
    const names = (await readdir(this.home)).filter((name) => name.endsWith('.keys')).sort();
    for (const name of names) {
      const segment = name.slice(0, -'.keys'.length);
      const found = await readKeys(this.home, segment, this.identity, this.#recordBytes).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined; // its records are gone, or not begun
        throw error;
      });
      if (!found) continue;
      if (found === 'foreign') {
        this.#tell(`the segment ${segment} is not of this cache, or damaged; it is left out`);
        continue;
      }
      this.#stats.torn += found.torn;
      for (const [index, key] of found.keys.entries()) {
        const place: Place = { segment, index };
        const other = this.#places.get(key);
        if (other) place.other = other;
        this.#places.set(key, place);
      }
    }
  }

  #tell(problem: string): void {
    this.#options.onProblem?.(`the feature cache ${this.home}: ${problem}`);
  }

  #check(): void {
    if (this.#closed) throw new MiniGptError('ERR_CLOSED', 'the feature cache is closed');
  }

  async get(key: string): Promise<Float32Array | Uint16Array | undefined> {
    this.#check();
    let record: Uint8Array<ArrayBuffer> | undefined;
    for (let place = this.#places.get(key); place && !record; place = place.other)
      record = await this.#read(key, place);
    if (!record) {
      this.#stats.misses++;
      return undefined;
    }
    this.#stats.hits++;
    return this.#options.type === 'f16' ? new Uint16Array(record.buffer) : new Float32Array(record.buffer);
  }

  async #read(key: string, place: Place): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const record = await readRecord(this.home, place.segment, place.index, key, this.#recordBytes).catch(
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    if (typeof record !== 'string') return record;
    if (this.#places.get(key) !== place) return undefined; // somebody asked at the same time, and was told
    if (place.other) this.#places.set(key, place.other);
    else this.#places.delete(key); // so that it is written anew
    this.#stats.damaged++;
    this.#tell(`record ${place.index} of ${place.segment} cannot be used: ${record}`);
    return undefined;
  }

  async put(key: string, features: Float32Array | Uint16Array): Promise<void> {
    this.#check();
    const { values, type } = this.#options;
    if (!/^[0-9a-f]{64}$/.test(key))
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `the feature cache: expected a SHA-256 in hex, found ${JSON.stringify(key)}`,
      );
    if (features.length !== values || (type === 'f32' && features instanceof Uint16Array)) {
      const found = `${features.length} of ${features instanceof Uint16Array ? 'f16' : 'f32'}`;
      throw new MiniGptError('ERR_ARGUMENT', `the feature cache: expected ${values} values of ${type}, found ${found}`);
    }
    // a copy, as the caller may go on with its own
    const numbers = type === 'f16' && features instanceof Float32Array ? toHalf(features) : features.slice();
    const write = this.#writes.then(() => this.#write(key, new Uint8Array(numbers.buffer)));
    this.#writes = write;
    return write;
  }

  async #write(key: string, record: Uint8Array): Promise<void> {
    if (!this.#stats.writing || this.#places.has(key)) return;
    try {
      this.#writer ??= await SegmentWriter.create(this.home, this.#options.rank, this.identity);
      const index = await this.#writer.append(key, record);
      this.#places.set(key, { segment: this.#writer.name, index });
      this.#stats.written++;
    } catch (error) {
      this.#stats.writing = false;
      this.#tell(`nothing more is written: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  stats(): FeatureCacheStats {
    return { records: this.#places.size, ...this.#stats };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#writes;
    const writer = this.#writer;
    this.#writer = undefined;
    await writer?.close().catch((error: unknown) => this.#tell(`closing failed: ${String(error)}`));
  }
}
