// safetensors files: a JSON header with names, types, shapes and byte ranges, then the numbers.
import { MiniGptError } from '../errors.js';
import { InputFile } from './input-file.js';
import {
  DTYPE_BYTES,
  contiguousStrides,
  plainBytes,
  shapeText,
  valueCount,
  type Checkpoint,
  type DType,
  type LazyTensor,
} from './tensor.js';

/** A header of 100,000 tensors has about 12 MB. */
const LARGEST_HEADER = 16 << 20;
/** `{"name": {"shape": [...]}}` is three deep; what is nested deeper only serves to exhaust a parser. */
const DEEPEST_HEADER = 8;

const TYPES: Readonly<Record<string, DType>> = {
  F64: 'f64',
  F32: 'f32',
  F16: 'f16',
  BF16: 'bf16',
  F8_E4M3: 'f8_e4m3',
  F8_E5M2: 'f8_e5m2',
  I64: 'i64',
  U64: 'u64',
  I32: 'i32',
  U32: 'u32',
  I16: 'i16',
  U16: 'u16',
  I8: 'i8',
  U8: 'u8',
  BOOL: 'bool',
};

/** Opens one file. Errors: those of InputFile.open, ERR_FILE_FORMAT, ERR_UNSUPPORTED (a number type not known here). */
export async function openSafetensors(path: string): Promise<Checkpoint> {
  const file = await InputFile.open(path);
  try {
    return await readHeader(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readHeader(file: InputFile): Promise<Checkpoint> {
  const fail = (why: string): never => {
    throw new MiniGptError('ERR_FILE_FORMAT', `${file.path}${why.startsWith('is ') ? ' ' : ': '}${why}`);
  };
  if (file.size < 10) fail(`${file.size} bytes are too few for a safetensors file`);
  const length = Number((await file.read(0, 8)).readBigUInt64LE(0));
  if (length > file.size - 8)
    fail(`is no safetensors file, or is cut off: its header is to have ${length} bytes, the file has ${file.size}`);
  if (length > LARGEST_HEADER) fail(`the safetensors header has ${length} bytes; expected at most ${LARGEST_HEADER}`);
  const text = await file.read(8, length);
  if (nesting(text) > DEEPEST_HEADER) fail('the safetensors header is nested too deeply');
  let header: unknown;
  try {
    header = JSON.parse(text.toString('utf8'));
  } catch (error) {
    fail(`the safetensors header is no JSON: ${(error as Error).message}`);
  }
  if (!isObject(header)) return fail('the safetensors header is not an object');

  const start = 8 + length;
  const tensors = new Map<string, LazyTensor>();
  const ranges: { begin: number; end: number; name: string }[] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    if (!isObject(entry)) return fail(`the entry of ${name} is not an object`);
    const { dtype: typeName, shape, data_offsets: offsets } = entry;
    if (typeof typeName !== 'string') return fail(`${name} has no dtype`);
    const dtype = Object.hasOwn(TYPES, typeName) ? TYPES[typeName] : undefined;
    if (!dtype) {
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${file.path}: ${name} has the number type '${typeName}'; known are ${Object.keys(TYPES).join(', ')}`,
      );
    }
    if (!isCounts(shape)) return fail(`${name} has a shape that is not a list of whole numbers`);
    if (!isCounts(offsets) || offsets.length !== 2)
      return fail(`${name} has data_offsets that are not two whole numbers`);
    const [begin, end] = offsets as [number, number];
    const bytes = valueCount(`${file.path}: ${name}`, shape) * DTYPE_BYTES[dtype];
    if (begin > end || end > file.size - start) {
      fail(
        `${name} lies at bytes ${begin} to ${end} of the data, which has ${file.size - start}; is the file incomplete?`,
      );
    }
    if (end - begin !== bytes)
      fail(`${name} has ${end - begin} bytes; expected ${bytes} for ${typeName} ${shapeText(shape)}`);
    if (bytes) ranges.push({ begin, end, name });
    tensors.set(name, new SafeTensor(name, dtype, shape, file, start + begin));
  }
  ranges.sort((a, b) => a.begin - b.begin);
  for (const [i, range] of ranges.entries()) {
    const before = ranges[i - 1];
    if (before && before.end > range.begin) fail(`${before.name} and ${range.name} overlap`);
  }
  if (!tensors.size) fail('it holds no tensors');
  return {
    path: file.path,
    format: 'safetensors',
    files: [file.path],
    tensors,
    notes: metadata(header['__metadata__']),
    close: () => file.close(),
  };
}

function metadata(entry: unknown): string[] {
  if (!isObject(entry)) return [];
  return Object.entries(entry)
    .slice(0, 20)
    .map(([key, value]) => `${key}: ${String(value).slice(0, 80)}`);
}

class SafeTensor implements LazyTensor {
  readonly strides: readonly number[];
  readonly file: string;
  readonly #input: InputFile;
  readonly #position: number;

  constructor(
    readonly name: string,
    readonly dtype: DType,
    readonly shape: readonly number[],
    input: InputFile,
    position: number,
  ) {
    this.strides = contiguousStrides(shape);
    this.file = input.path;
    this.#input = input;
    this.#position = position;
  }

  async read(from = 0, count = valueCount(this.name, this.shape) - from): Promise<Uint8Array> {
    if (from < 0 || count < 0 || from + count > valueCount(this.name, this.shape)) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${this.name}: values ${from} to ${from + count} of a tensor of shape ${shapeText(this.shape)}`,
      );
    }
    const width = DTYPE_BYTES[this.dtype];
    return plainBytes(await this.#input.read(this.#position + from * width, count * width));
  }
}

/** How deep the brackets outside of strings nest. */
function nesting(json: Uint8Array): number {
  let depth = 0,
    deepest = 0,
    quoted = false;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (quoted) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) quoted = false;
    } else if (byte === 0x22) quoted = true;
    else if (byte === 0x5b || byte === 0x7b) deepest = Math.max(deepest, ++depth);
    else if (byte === 0x5d || byte === 0x7d) depth--;
  }
  return deepest;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && (item as number) >= 0);
}
