// One segment of the feature cache on disk: fixed-size records, and the file of keys that says which of them are whole.
import { open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { MiniGptError } from '../errors.js';

const magic = 'MGPTFEAT';
const headerBytes = 8 + 32;
/** SHA-256 of the picture, CRC-32 of key and record. */
const keyBytes = 32;
const entryBytes = keyBytes + 4;

/** Digest of the model, number type and size that a segment's records belong to: 32 bytes. */
export type CacheIdentity = Uint8Array;

export function keysPath(folder: string, segment: string): string {
  return join(folder, `${segment}.keys`);
}

export function recordsPath(folder: string, segment: string): string {
  return join(folder, `${segment}.features`);
}

/**
 * The keys (hex) of the records that are whole, in the records' order, and how many others were begun. Undefined: the segment is only just
 * begun; 'foreign': it has another header.
 */
export async function readKeys(
  folder: string,
  segment: string,
  identity: CacheIdentity,
  recordBytes: number,
): Promise<{ keys: string[]; torn: number } | 'foreign' | undefined> {
  const bytes = await readFile(keysPath(folder, segment));
  if (bytes.length < headerBytes) return undefined;
  if (bytes.toString('latin1', 0, 8) !== magic || !bytes.subarray(8, headerBytes).equals(identity)) return 'foreign';
  const { size } = await stat(recordsPath(folder, segment));
  const begun = (bytes.length - headerBytes) / entryBytes;
  const whole = Math.min(Math.floor(begun), Math.floor(size / recordBytes));
  const keys = Array.from({ length: whole }, (_, i) => {
    const at = headerBytes + i * entryBytes;
    return bytes.toString('hex', at, at + keyBytes);
  });
  return { keys, torn: Math.max(Math.ceil(begun), Math.ceil(size / recordBytes)) - whole };
}

/** A record's bytes, or why it can't be used. */
export async function readRecord(
  folder: string,
  segment: string,
  index: number,
  key: string,
  recordBytes: number,
): Promise<Uint8Array<ArrayBuffer> | string> {
  const [keys, records] = await Promise.all([
    readPart(keysPath(folder, segment), headerBytes + index * entryBytes, entryBytes),
    readPart(recordsPath(folder, segment), index * recordBytes, recordBytes),
  ]);
  if (!keys || !records) return 'its files have become shorter';
  const stored = new DataView(keys.buffer).getUint32(keyBytes, true);
  return stored === checksum(key, records) ? records : 'its checksum is another than was written';
}

async function readPart(path: string, position: number, length: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const file = await open(path, 'r');
  try {
    const bytes = new Uint8Array(length);
    for (let filled = 0; filled < length;) {
      const { bytesRead } = await file.read(bytes, filled, length - filled, position + filled);
      if (bytesRead === 0) return undefined;
      filled += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

function checksum(key: string, record: Uint8Array): number {
  return crc32(record, crc32(Buffer.from(key, 'hex')));
}

/** A segment that this process writes, and nobody else. */
export class SegmentWriter {
  #count = 0;

  private constructor(
    readonly name: string,
    readonly keys: FileHandle,
    readonly records: FileHandle,
  ) {}

  /** Under the first free name of the rank's: a file that is there already is another process's. Errors: the system's. */
  static async create(folder: string, rank: number, identity: CacheIdentity): Promise<SegmentWriter> {
    for (let number = 0; ; number++) {
      const name = `rank${rank}-${String(number).padStart(4, '0')}`;
      const keys = await open(keysPath(folder, name), 'wx').catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') return undefined;
        throw error;
      });
      if (!keys) continue;
      try {
        await writeAt(keys, Buffer.concat([Buffer.from(magic, 'latin1'), identity]), 0);
        return new SegmentWriter(name, keys, await open(recordsPath(folder, name), 'wx'));
      } catch (error) {
        await keys.close();
        throw error;
      }
    }
  }

  /** The record's index. The key follows when the record is written; after a failure the place is used again. Errors: the system's. */
  async append(key: string, record: Uint8Array): Promise<number> {
    const index = this.#count;
    await writeAt(this.records, record, index * record.byteLength);
    const entry = Buffer.alloc(entryBytes);
    if (entry.write(key, 'hex') !== keyBytes)
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `expected a key of ${keyBytes} bytes in hex, found ${JSON.stringify(key)}`,
      );
    entry.writeUInt32LE(checksum(key, record), keyBytes);
    await writeAt(this.keys, entry, headerBytes + index * entryBytes);
    return this.#count++;
  }

  async close(): Promise<void> {
    await this.records.close();
    await this.keys.close();
  }
}

/** A disk that fills writes a part first, and fails at the rest. */
async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;)
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}
