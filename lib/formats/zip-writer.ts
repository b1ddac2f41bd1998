// Builds zip archives of stored entries whose bytes begin at multiples of 64, as PyTorch saves them, so that they can be mapped.
import { crc32 } from 'node:zlib';
import { MiniGptError } from '../errors.js';

export interface StoredEntry {
  name: string;
  bytes: Uint8Array;
}

const ALIGNMENT = 64;
const LOCAL_HEADER = 30;
/** Sizes and places are written in 32 bits; beyond them the format needs its 64-bit records. */
const LARGEST = 0xffffffff;
/** 1 January 1980, the first date that an archive knows: the same entries always give the same bytes. */
const DATE = 0x0021;
/** The id of the extra field that fills up to the next multiple: 'FB', as PyTorch's has. */
const PADDING_ID = 0x4246;

/** The archive's pieces, in order. Errors: ERR_UNSUPPORTED (4 GiB or more). */
export function storedZip(path: string, entries: readonly StoredEntry[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  const put = (bytes: Uint8Array): void => {
    pieces.push(bytes);
    at += bytes.length;
  };
  for (const { name, bytes } of entries) {
    const nameBytes = Buffer.from(name, 'utf8');
    const fixed = at + LOCAL_HEADER + nameBytes.length + 4;
    const padding = (ALIGNMENT - (fixed % ALIGNMENT)) % ALIGNMENT;
    const extra = Buffer.alloc(4 + padding, 'Z');
    extra.writeUInt16LE(PADDING_ID, 0);
    extra.writeUInt16LE(padding, 2);
    const common = commonFields(bytes, nameBytes);
    const place = at;
    put(Buffer.concat([word32(0x04034b50), common, word16(extra.length), nameBytes, extra]));
    put(bytes);
    // version made by: 2.0; no extra field, comment, disk number or attributes
    directory.push(Buffer.concat([word32(0x02014b50), word16(20), common, Buffer.alloc(12), word32(place), nameBytes]));
    if (at > LARGEST)
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${path}: the archive would have ${at} bytes; expected less than 4 GiB`,
      );
  }
  const start = at;
  const length = directory.reduce((sum, entry) => sum + entry.length, 0);
  for (const entry of directory) put(entry);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(length, 12);
  end.writeUInt32LE(start, 16);
  put(end);
  return pieces;
}

/** What an entry's two headers share: version, flags (UTF-8 names), method (stored), date, checksum, sizes, the name's length. */
function commonFields(bytes: Uint8Array, name: Buffer): Buffer {
  const size = word32(bytes.length);
  return Buffer.concat([
    word16(20),
    word16(0x0800),
    word16(0),
    word16(0),
    word16(DATE),
    word32(crc32(bytes)),
    size,
    size,
    word16(name.length),
  ]);
}

function word16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function word32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
