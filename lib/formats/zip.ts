// A zip archive (64-bit sizes too) over an open file. yauzl finds the entries;
// stored ones are then read at their place in the file, deflated ones unpacked whole.
import { promisify } from 'node:util';
import { crc32, inflateRaw, type ZlibOptions } from 'node:zlib';
import yauzl, { type Entry, type ZipFile } from 'yauzl';
import { MiniGptError } from '../errors.js';
import type { InputFile } from './input-file.js';
import type { CheckedRegion } from './tensor.js';

const inflate = promisify(inflateRaw) as (packed: Uint8Array, options: ZlibOptions) => Promise<Buffer>;
const MOST_ENTRIES = 1_000_000;
/** Deflate's best: 258 bytes from two bits, so no honest entry is larger than this times its packed size. */
const DEFLATE_RATIO = 1032;

export interface ZipEntry {
  readonly name: string;
  /** Unpacked. */
  readonly size: number;
  readonly stored: boolean;
  readonly crc32: number;
}

export class ZipArchive {
  readonly entries = new Map<string, ZipEntry>();
  readonly #file: InputFile;
  readonly #reader: PositionReader;
  readonly #zip: ZipFile;
  readonly #raw = new Map<string, Entry>();

  private constructor(file: InputFile, reader: PositionReader, zip: ZipFile) {
    this.#file = file;
    this.#reader = reader;
    this.#zip = zip;
  }

  /** Reads the directory of entries. Errors: ERR_FILE_FORMAT. */
  static async open(file: InputFile): Promise<ZipArchive> {
    try {
      const reader = new PositionReader(file);
      const zip = await reader.guard(yauzl.fromRandomAccessReaderPromise(reader, file.size, { autoClose: false }));
      zip.on('error', () => {}); // also reported by whatever call is under way
      const archive = new ZipArchive(file, reader, zip);
      const entries = zip.eachEntry();
      for (;;) {
        const next = await reader.guard(entries.next());
        if (next.done) break;
        archive.#add(next.value);
      }
      return archive;
    } catch (error) {
      throw archiveError(file.path, error);
    }
  }

  #add(entry: Entry): void {
    const name = entry.fileName;
    if (this.#raw.size >= MOST_ENTRIES) throw new Error(`more than ${MOST_ENTRIES} entries`);
    if (this.#raw.has(name)) throw new Error(`two entries have the name '${name}'`);
    const stored = entry.compressionMethod === 0;
    if (entry.isEncrypted()) throw new Error(`'${name}' is encrypted`);
    if (!stored && entry.compressionMethod !== 8)
      throw new Error(`'${name}' has the compression method ${entry.compressionMethod}; 0 and 8 are known`);
    if (entry.compressedSize > this.#file.size)
      throw new Error(`'${name}' is to have ${entry.compressedSize} bytes, the file has ${this.#file.size}`);
    if (!stored && entry.uncompressedSize > entry.compressedSize * DEFLATE_RATIO) {
      throw new Error(
        `'${name}' is to unpack ${entry.compressedSize} bytes to ${entry.uncompressedSize}, which deflate can't`,
      );
    }
    this.#raw.set(name, entry);
    this.entries.set(name, { name, size: entry.uncompressedSize, stored, crc32: entry.crc32 });
  }

  /** Where a stored entry's bytes begin in the file. */
  async position(name: string): Promise<number> {
    try {
      const entry = this.#raw.get(name)!;
      return (await this.#reader.guard(this.#zip.readLocalFileHeaderPromise(entry, { minimal: true }))).fileDataStart;
    } catch (error) {
      throw archiveError(this.#file.path, error);
    }
  }

  /** Where stored entries lie and what checksum they are to have. Errors: ERR_FILE_FORMAT (two lie in the same place). */
  async regions(): Promise<CheckedRegion[]> {
    const regions: CheckedRegion[] = [];
    for (const { name, size, stored, crc32 } of this.entries.values()) {
      // PyTorch can be told to save without checksums; it writes 0 then.
      if (!stored || size === 0 || crc32 === 0) continue;
      regions.push({ what: name, file: this.#file.path, position: await this.position(name), size, crc32 });
    }
    regions.sort((a, b) => a.position - b.position);
    for (const [i, region] of regions.entries()) {
      const before = regions[i - 1];
      if (before && before.position + before.size > region.position) {
        throw archiveError(this.#file.path, new Error(`'${before.what}' and '${region.what}' overlap`));
      }
    }
    return regions;
  }

  /** All of an entry's bytes. */
  async read(name: string): Promise<Uint8Array> {
    const entry = this.entries.get(name)!;
    if (entry.stored) return this.#file.read(await this.position(name), entry.size);
    const packed = await this.#file.read(await this.position(name), this.#raw.get(name)!.compressedSize);
    try {
      const bytes = await inflate(packed, { maxOutputLength: Math.max(entry.size, 1) });
      if (bytes.length !== entry.size)
        throw new Error(`'${name}' unpacks to ${bytes.length} bytes, expected ${entry.size}`);
      if (crc32(bytes) !== entry.crc32) throw new Error(`'${name}' is damaged (its checksum differs)`);
      return bytes;
    } catch (error) {
      throw archiveError(this.#file.path, error);
    }
  }
}

function archiveError(path: string, error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  return new MiniGptError(
    'ERR_FILE_FORMAT',
    `${path} is a damaged or incomplete zip archive: ${(error as Error).message}`,
    { cause: error },
  );
}

/** yauzl's view of an InputFile. What yauzl throws inside its callbacks would end the process; here it rejects `guard`. */
class PositionReader extends yauzl.RandomAccessReader {
  #reject: ((error: unknown) => void) | undefined;
  constructor(readonly file: InputFile) {
    super();
  }

  /** Awaits `work`, or what a callback threw meanwhile. */
  async guard<T>(work: Promise<T>): Promise<T> {
    const thrown = new Promise<never>((_, reject) => {
      this.#reject = reject;
    });
    return Promise.race([work, thrown]);
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    const done = (error: Error | null): void => {
      try {
        callback(error);
      } catch (thrown) {
        this.#reject?.(thrown);
      }
    };
    this.file.read(position, length).then((bytes) => {
      bytes.copy(buffer, offset);
      done(null);
    }, done);
  }

  override close(callback: (error: Error | null) => void): void {
    callback(null); // the file belongs to whoever opened it
  }
}
