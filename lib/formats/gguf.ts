// Reads the head of GGUF files: keys, and where each tensor's blocks lie. The numbers themselves are decoded by the native code.
import type { GgufKey, GgufKeyType } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { withLayout } from './gguf-layout.js';
import { InputFile } from './input-file.js';
import { shapeText, valueCount } from './tensor.js';

const LARGEST_HEAD = 256 << 20;
/** Elements of all arrays together; a vocabulary of 128,000 pieces with merges has about 660,000. */
const MOST_ELEMENTS = 1 << 24;

const KEY_TYPES: readonly GgufKeyType[] = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
];
const KEY_BYTES: Readonly<Record<GgufKeyType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: 8,
  array: 12,
  u64: 8,
  i64: 8,
  f64: 8,
};
/** Type number: name, values a block, bytes a block. */
const TENSOR_TYPES: Readonly<Record<number, readonly [string, number, number]>> = {
  0: ['f32', 1, 4],
  1: ['f16', 1, 2],
  2: ['q4_0', 32, 18],
  3: ['q4_1', 32, 20],
  6: ['q5_0', 32, 22],
  7: ['q5_1', 32, 24],
  8: ['q8_0', 32, 34],
  10: ['q2_k', 256, 84],
  11: ['q3_k', 256, 110],
  12: ['q4_k', 256, 144],
  13: ['q5_k', 256, 176],
  14: ['q6_k', 256, 210],
  16: ['iq2_xxs', 256, 66],
  17: ['iq2_xs', 256, 74],
  18: ['iq3_xxs', 256, 98],
  19: ['iq1_s', 256, 50],
  20: ['iq4_nl', 32, 18],
  21: ['iq3_s', 256, 110],
  22: ['iq2_s', 256, 82],
  23: ['iq4_xs', 256, 136],
  24: ['i8', 1, 1],
  25: ['i16', 1, 2],
  26: ['i32', 1, 4],
  27: ['i64', 1, 8],
  28: ['f64', 1, 8],
  29: ['iq1_m', 256, 56],
  30: ['bf16', 1, 2],
  34: ['tq1_0', 256, 54],
  35: ['tq2_0', 256, 66],
  39: ['mxfp4', 32, 17],
};

export interface GgufTensorPlace {
  readonly name: string;
  readonly type: string;
  /** Row-major, PyTorch's order. */
  readonly shape: readonly number[];
  readonly bytes: number;
  /** True of a matrix in the CPU's layout: type and shape are those of the numbers it stands for, `bytes` those in the file. */
  readonly grouped: boolean;
  readonly part: InputFile;
  /** Of the first byte in `part`. */
  readonly position: number;
}

export interface GgufFile {
  readonly path: string;
  readonly version: number;
  /** In the file's order; of a split file the first part's, without the `split.` keys. */
  readonly keys: readonly GgufKey[];
  readonly tensors: readonly GgufTensorPlace[];
  readonly files: readonly string[];
  close(): Promise<void>;
}

/**
 * Opens a GGUF file with all its parts (`…-00001-of-0000N.gguf`). Errors: those of InputFile.open, ERR_FILE_FORMAT,
 * ERR_UNSUPPORTED (version 1, big-endian, a tensor type not known here).
 */
export async function openGguf(path: string): Promise<GgufFile> {
  const parts: InputFile[] = [];
  const close = async (): Promise<void> => {
    for (const part of parts) await part.close();
  };
  try {
    parts.push(await InputFile.open(path));
    const first = await readPart(parts[0]!);
    const tensors = [...first.tensors];
    const count = first.keys.find((key) => key.key === 'split.count')?.value;
    if (typeof count === 'number' && count > 1) {
      for (const other of partNames(path, count)) {
        const part = await InputFile.open(other);
        parts.push(part);
        tensors.push(...(await readPart(part)).tensors);
      }
    }
    const names = new Set(tensors.map((tensor) => tensor.name));
    if (names.size !== tensors.length)
      throw new MiniGptError('ERR_FILE_FORMAT', `${path}: two tensors have the same name`);
    const keys = first.keys.filter((key) => !key.key.startsWith('split.'));
    const files = parts.map((part) => part.path);
    return {
      path,
      version: first.version,
      keys,
      tensors: withLayout(path, keys, tensors, (number) => TENSOR_TYPES[number]?.[0]),
      files,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function partNames(path: string, count: number): string[] {
  const match = /^(.*)-00001-of-(\d{5})\.gguf$/.exec(path);
  if (!match || Number(match[2]) !== count) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${path} is one of ${count} parts; give the first one, whose name ends with -00001-of-${String(count).padStart(5, '0')}.gguf`,
    );
  }
  return Array.from(
    { length: count - 1 },
    (_, i) => `${match[1]}-${String(i + 2).padStart(5, '0')}-of-${match[2]}.gguf`,
  );
}

/** Thrown by Head when the bytes read so far end too early. */
class NeedsMore extends Error {}

interface Part {
  version: number;
  keys: GgufKey[];
  tensors: GgufTensorPlace[];
}

async function readPart(file: InputFile): Promise<Part> {
  // The head's length stands nowhere: parse what was read, and read four times as much where that was too little.
  for (let length = Math.min(file.size, 1 << 20); ; length = Math.min(file.size, length * 4)) {
    const bytes = await file.read(0, length);
    try {
      return new Head(bytes, file).read();
    } catch (error) {
      if (!(error instanceof NeedsMore)) throw error;
      if (length === file.size)
        throw new MiniGptError(
          'ERR_FILE_FORMAT',
          `${file.path} ends within its head (${file.size} bytes); is it incomplete?`,
        );
      if (length > LARGEST_HEAD)
        throw new MiniGptError('ERR_FILE_FORMAT', `${file.path}: the head has more than ${LARGEST_HEAD} bytes`);
    }
  }
}

class Head {
  readonly #bytes: Buffer;
  readonly #file: InputFile;
  #at = 0;
  #elements = 0;

  constructor(bytes: Buffer, file: InputFile) {
    this.#bytes = bytes;
    this.#file = file;
  }

  read(): Part {
    if (this.#take(4).toString('latin1') !== 'GGUF')
      this.#fail(`it begins with the bytes ${this.#bytes.toString('hex', 0, 4)}; expected 'GGUF'`);
    const version = this.#take(4).readUInt32LE(0);
    if ((version & 0xffff) === 0)
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${this.#file.path} is a big-endian GGUF file; expected a little-endian one`,
      );
    if (version !== 2 && version !== 3)
      throw new MiniGptError('ERR_UNSUPPORTED', `${this.#file.path} is GGUF version ${version}; 2 and 3 are read`);
    const tensorCount = this.#count(24, 'tensors');
    const keyCount = this.#count(13, 'keys');
    const keys: GgufKey[] = [];
    const seen = new Set<string>();
    for (let i = 0; i < keyCount; i++) {
      const key = this.#key();
      if (seen.has(key.key)) this.#fail(`the key ${key.key} appears twice`);
      seen.add(key.key);
      keys.push(key);
    }
    const alignment = keys.find((key) => key.key === 'general.alignment')?.value ?? 32;
    if (typeof alignment !== 'number' || alignment < 1 || alignment > 1 << 20 || (alignment & (alignment - 1)) !== 0) {
      this.#fail(`general.alignment is ${String(alignment)}; expected a power of two`);
    }
    const plans = [];
    for (let i = 0; i < tensorCount; i++) plans.push(this.#tensor(alignment));
    const start = Math.ceil(this.#at / alignment) * alignment;
    const tensors: GgufTensorPlace[] = [];
    let end = 0;
    let before = '';
    for (const plan of [...plans].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
      if (plan.offset < end && plan.bytes > 0) this.#fail(`the tensors ${before} and ${plan.name} overlap`);
      end = Math.max(end, plan.offset + plan.bytes);
      before = plan.name;
    }
    if (start + end > this.#file.size && plans.length) {
      this.#fail(`its tensors reach to byte ${start + end}, the file has ${this.#file.size}; is it incomplete?`);
    }
    for (const { offset, ...plan } of plans)
      tensors.push({ ...plan, grouped: false, part: this.#file, position: start + offset });
    return { version, keys, tensors };
  }

  #key(): GgufKey {
    const key = this.#string();
    const type = this.#keyType();
    if (type !== 'array') return { key, type, value: this.#value(type) };
    const elementType = this.#keyType();
    if (elementType === 'array') this.#fail(`the key ${key} is an array of arrays`);
    const count = this.#count(KEY_BYTES[elementType], `elements of ${key}`);
    this.#elements += count;
    if (this.#elements > MOST_ELEMENTS) this.#fail(`its arrays have more than ${MOST_ELEMENTS} elements`);
    const values = [];
    for (let i = 0; i < count; i++) values.push(this.#value(elementType));
    return { key, type, elementType, value: values as number[] };
  }

  #tensor(alignment: number): { name: string; type: string; shape: number[]; bytes: number; offset: number } {
    const name = this.#string();
    const dimensions = this.#take(4).readUInt32LE(0);
    if (dimensions < 1 || dimensions > 4)
      this.#fail(`the tensor ${name} has ${dimensions} dimensions; expected 1 to 4`);
    const shape: number[] = [];
    for (let d = 0; d < dimensions; d++) shape.unshift(this.#size(`the shape of ${name}`));
    const number = this.#take(4).readUInt32LE(0);
    const type = TENSOR_TYPES[number];
    if (!type)
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${this.#file.path}: the tensor ${name} has the type ${number}, which is not known here`,
      );
    const [typeName, blockValues, blockBytes] = type;
    const row = shape.at(-1)!;
    if (row % blockValues)
      this.#fail(`the tensor ${name} has rows of ${row} values; ${typeName} needs a multiple of ${blockValues}`);
    const bytes = (valueCount(`${this.#file.path}: ${name}`, shape) / blockValues) * blockBytes;
    const offset = this.#size(`the offset of ${name}`);
    if (offset % alignment) this.#fail(`the tensor ${name} begins at ${offset}; expected a multiple of ${alignment}`);
    if (bytes > this.#file.size || offset > this.#file.size) {
      this.#fail(
        `the tensor ${name} of shape ${shapeText(shape)} at ${offset} has ${bytes} bytes, the file has ${this.#file.size}; is it incomplete?`,
      );
    }
    return { name, type: typeName, shape, bytes, offset };
  }

  #value(type: GgufKeyType): number | bigint | string | boolean {
    if (type === 'string') return this.#string();
    const at = this.#take(KEY_BYTES[type]);
    switch (type) {
      case 'u8':
        return at.readUInt8(0);
      case 'i8':
        return at.readInt8(0);
      case 'u16':
        return at.readUInt16LE(0);
      case 'i16':
        return at.readInt16LE(0);
      case 'u32':
        return at.readUInt32LE(0);
      case 'i32':
        return at.readInt32LE(0);
      case 'f32':
        return at.readFloatLE(0);
      case 'f64':
        return at.readDoubleLE(0);
      case 'u64':
        return exact(at.readBigUInt64LE(0));
      case 'i64':
        return exact(at.readBigInt64LE(0));
      default: {
        // bool
        const byte = at.readUInt8(0);
        if (byte > 1) this.#fail(`a truth value is ${byte}; expected 0 or 1`);
        return byte === 1;
      }
    }
  }

  #keyType(): GgufKeyType {
    const number = this.#take(4).readUInt32LE(0);
    return KEY_TYPES[number] ?? this.#fail(`a key has the type ${number}; 0 to 12 are known`);
  }

  #string(): string {
    const length = this.#size("a string's length");
    if (length > this.#file.size) this.#fail(`a string is to have ${length} bytes, the file has ${this.#file.size}`);
    return this.#take(length).toString('utf8');
  }

  /** A 64-bit count of things of at least `bytes` bytes each, which must still fit into the file. */
  #count(bytes: number, what: string): number {
    const count = this.#size(`the number of ${what}`);
    if (count * bytes > this.#file.size - this.#at)
      this.#fail(`${count} ${what} don't fit into the ${this.#file.size} bytes of the file`);
    return count;
  }

  #size(what: string): number {
    const size = this.#take(8).readBigUInt64LE(0);
    if (size > BigInt(Number.MAX_SAFE_INTEGER)) this.#fail(`${what} is ${size}`);
    return Number(size);
  }

  #take(count: number): Buffer {
    if (this.#at + count > this.#bytes.length) throw new NeedsMore();
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }

  #fail(why: string): never {
    throw new MiniGptError('ERR_FILE_FORMAT', `${this.#file.path}: ${why} (near byte ${this.#at})`);
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
