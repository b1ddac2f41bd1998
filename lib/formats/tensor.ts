// What every checkpoint format gives: tensors whose name, type and shape are known and whose values are read when asked for.
import { MiniGptError } from '../errors.js';

/** Number types as PyTorch and safetensors store them. */
export type DType =
  | 'f64'
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'f8_e4m3'
  | 'f8_e5m2'
  | 'i64'
  | 'u64'
  | 'i32'
  | 'u32'
  | 'i16'
  | 'u16'
  | 'i8'
  | 'u8'
  | 'bool';

/** Bytes of one value. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  f8_e4m3: 1,
  f8_e5m2: 1,
  i64: 8,
  u64: 8,
  i32: 4,
  u32: 4,
  i16: 2,
  u16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
};

/** A tensor in a file. */
export interface LazyTensor {
  readonly name: string;
  readonly dtype: DType;
  /** Row-major, PyTorch's order. */
  readonly shape: readonly number[];
  /** Steps in values between neighbours of each dimension, in the storage. */
  readonly strides: readonly number[];
  /** Which file holds it. */
  readonly file: string;
  /** `count` values from the `from`-th in row-major order, whatever the strides: raw little-endian numbers. Default: all. */
  read(from?: number, count?: number): Promise<Uint8Array>;
}

/** A part of a file whose CRC-32 the file itself states. */
export interface CheckedRegion {
  readonly what: string;
  readonly file: string;
  readonly position: number;
  readonly size: number;
  readonly crc32: number;
}

/** An open checkpoint. */
export interface Checkpoint {
  /** As the user named it. */
  readonly path: string;
  readonly format: 'pth' | 'safetensors' | 'hugging-face';
  /** Files that hold it, for hashing. */
  readonly files: readonly string[];
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  /** What else the file says of itself, for people: other top-level entries, metadata. */
  readonly notes: readonly string[];
  /** Parts with a checksum, by position, without overlaps. Absent where the format has none. */
  regions?(): Promise<CheckedRegion[]>;
  close(): Promise<void>;
}

/** Number of values; ERR_FILE_FORMAT when it is not a number that JavaScript counts exactly. */
export function valueCount(what: string, shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${what} has the size ${String(size)} in its shape; expected whole numbers from 0`,
      );
    }
    count *= size;
    // Not merely the last product: 0 beside huge sizes is no shape of anything either.
    if (count > Number.MAX_SAFE_INTEGER)
      throw new MiniGptError('ERR_FILE_FORMAT', `${what} has the shape ${shapeText(shape)}, which no file can hold`);
  }
  return count;
}

/** Strides of a row-major tensor without gaps. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let d = shape.length - 2; d >= 0; d--) strides[d] = strides[d + 1]! * Math.max(shape[d + 1]!, 1);
  return strides;
}

/** The same bytes as a plain Uint8Array: a Buffer's `slice` shares what a Uint8Array's copies. */
export function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/** A tensor's values in chunks of whole rows (last dimension) of about `bytes` bytes, at least one row each. */
export async function* chunks(tensor: LazyTensor, bytes = 8 << 20): AsyncGenerator<Uint8Array> {
  const total = valueCount(tensor.name, tensor.shape);
  const row = tensor.shape.at(-1) ?? 1;
  if (total === 0) return;
  const step = row * Math.max(1, Math.floor(bytes / (row * DTYPE_BYTES[tensor.dtype])));
  for (let from = 0; from < total; from += step) yield tensor.read(from, Math.min(step, total - from));
}
