// Where the members of a tar file lie, from its headers alone: ustar, pax and GNU archives of any size, damaged and cut ones as far as they go.
import { InputFile } from '../formats/input-file.js';

/** A regular file in a tar. */
export interface TarMember {
  name: string;
  /** Byte of the file where its contents begin. */
  offset: number;
  size: number;
}

export interface TarIndex {
  members: TarMember[];
  /** Bytes of the tar file. */
  bytes: number;
  /** Why the reading ended before the archive's end; the members before are whole. */
  problem?: string;
}

const block = 512;
/** Bytes that are read around a header: members of WebDatasets are small, so several headers come with one read. */
const windowBytes = 64 * 1024;
/** A name, or a pax record with all its fields, is never longer than this. */
const maxExtended = 2 ** 20;

/** Reads a file in windows, so that headers side by side cost one read. */
class Window {
  #start = 0;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(readonly file: InputFile) {}

  /** `length` bytes at `position`, or undefined beyond the end. */
  async at(position: number, length: number): Promise<Buffer | undefined> {
    if (position + length > this.file.size) return undefined;
    if (position < this.#start || position + length > this.#start + this.#bytes.length) {
      this.#start = position;
      this.#bytes = await this.file.read(position, Math.min(Math.max(length, windowBytes), this.file.size - position));
    }
    return this.#bytes.subarray(position - this.#start, position - this.#start + length);
  }
}

/**
 * The regular members of a tar, in its order. A damaged or cut archive gives those that are whole, and the problem.
 *
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT (0 bytes), ERR_FILE_CHANGED.
 */
export async function readTarIndex(path: string): Promise<TarIndex> {
  const file = await InputFile.open(path);
  try {
    const index: TarIndex = { members: [], bytes: file.size };
    const problem = await readHeaders(new Window(file), index.members);
    if (problem !== undefined) index.problem = problem;
    return index;
  } finally {
    await file.close();
  }
}

async function readHeaders(window: Window, members: TarMember[]): Promise<string | undefined> {
  let globals = new Map<string, string>();
  let fields = new Map<string, string>(); // of the next member
  for (let at = 0; ;) {
    const header = await window.at(at, block);
    if (!header) {
      return at >= window.file.size
        ? 'ends without the mark of a tar’s end: is it cut off?'
        : `is cut off in the header at byte ${at}`;
    }
    if (header.every((byte) => byte === 0)) return undefined; // the end's mark
    if (!hasChecksum(header)) return noHeader(header, at);
    const type = String.fromCharCode(header[156]! || 0x30);
    const wide = fields.get('size') ?? globals.get('size');
    const size = wide !== undefined && !'xgLK'.includes(type) ? decimal(wide) : numberAt(header, 124, 12);
    if (size === undefined) return `is damaged at byte ${at}: expected a member's size, found other bytes`;
    const start = at + block;
    if (start + size > window.file.size) {
      return `is cut off at byte ${window.file.size}: ${fields.get('path') ?? plainName(header)} goes on to byte ${start + size}`;
    }
    if ('xgLK'.includes(type)) {
      if (size > maxExtended) return `is damaged at byte ${at}: a name of ${size} bytes`;
      const body = (await window.at(start, size))!;
      if (type === 'L') fields.set('path', textOf(body));
      else if (type !== 'K') {
        const found = paxFields(body);
        if (!found) return `is damaged at byte ${start}: expected pax records, found other bytes`;
        if (type === 'g') globals = new Map([...globals, ...found]);
        else fields = new Map([...fields, ...found]);
      }
    } else {
      if (type === 'S')
        return `has a sparse member at byte ${at}, which is not read: expected files that are stored whole`;
      const name = fields.get('path') ?? globals.get('path') ?? plainName(header);
      if ((type === '0' || type === '7') && !name.endsWith('/')) members.push({ name, offset: start, size });
      fields = new Map();
    }
    at = start + Math.ceil(size / block) * block;
  }
}

function noHeader(header: Buffer, at: number): string {
  if (at > 0) return `is damaged at byte ${at}: expected the header of a member, found other bytes`;
  if (header[0] === 0x1f && header[1] === 0x8b) return 'is compressed with gzip: expected a plain tar file';
  return 'is no tar file: expected a header, found other bytes';
}

/** The sum of the header's bytes, its own field read as spaces, must stand in it; old archives summed signed bytes. */
function hasChecksum(header: Buffer): boolean {
  let sum = 0;
  let signed = 0;
  for (let i = 0; i < block; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : header[i]!;
    sum += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  const stored = numberAt(header, 148, 8);
  return stored === sum || stored === signed;
}

/** Octal digits, or (first bit set) a big-endian binary number. */
function numberAt(header: Buffer, from: number, length: number): number | undefined {
  const bytes = header.subarray(from, from + length);
  if (bytes[0]! & 0x80) {
    let value = bytes[0]! & 0x7f;
    for (const byte of bytes.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = bytes
    .toString('latin1')
    .replace(/[\0 ]+$/, '')
    .replace(/^ +/, '');
  return /^[0-7]*$/.test(text) ? parseInt(text || '0', 8) : undefined;
}

function decimal(text: string): number | undefined {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  return Number.isSafeInteger(value) ? value : undefined;
}

function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

function plainName(header: Buffer): string {
  const name = textOf(header.subarray(0, 100));
  const ustar = header.toString('latin1', 257, 263) === 'ustar\0'; // GNU's own magic has other things in the prefix's place
  const prefix = ustar ? textOf(header.subarray(345, 500)) : '';
  return prefix ? `${prefix}/${name}` : name;
}

/** Records `LENGTH KEY=VALUE\n`, the length counting itself. */
function paxFields(body: Buffer): Map<string, string> | undefined {
  const fields = new Map<string, string>();
  for (let at = 0; at < body.length && body[at] !== 0;) {
    const space = body.indexOf(0x20, at);
    const length = space < 0 ? undefined : decimal(body.toString('latin1', at, space));
    if (!length || at + length > body.length || body[at + length - 1] !== 0x0a) return undefined;
    const record = body.toString('utf8', space + 1, at + length - 1);
    const equals = record.indexOf('=');
    if (equals < 1) return undefined;
    fields.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return fields;
}
