// Small arrays of stored numbers as float32. Weights are decoded by the native code; this is for biases and odd types.
import { MiniGptError } from '../errors.js';
import { DTYPE_BYTES, type DType } from './tensor.js';

/** The values of raw little-endian numbers. Errors: ERR_UNSUPPORTED (8-bit floats), ERR_FILE_FORMAT (half a number). */
export function toFloat32(dtype: DType, bytes: Uint8Array): Float32Array {
  const width = DTYPE_BYTES[dtype];
  if (bytes.byteLength % width)
    throw new MiniGptError('ERR_FILE_FORMAT', `${bytes.byteLength} bytes are no whole number of ${dtype} values`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array(bytes.byteLength / width);
  const read = reader(dtype, view);
  for (let i = 0; i < values.length; i++) values[i] = read(i * width);
  return values;
}

function reader(dtype: DType, view: DataView): (at: number) => number {
  switch (dtype) {
    case 'f64':
      return (at) => view.getFloat64(at, true);
    case 'f32':
      return (at) => view.getFloat32(at, true);
    case 'f16':
      return (at) => halfToNumber(view.getUint16(at, true));
    case 'bf16': {
      const bits = new DataView(new ArrayBuffer(4));
      return (at) => {
        bits.setUint16(0, view.getUint16(at, true), false);
        return bits.getFloat32(0, false);
      };
    }
    case 'i64':
      return (at) => Number(view.getBigInt64(at, true));
    case 'u64':
      return (at) => Number(view.getBigUint64(at, true));
    case 'i32':
      return (at) => view.getInt32(at, true);
    case 'u32':
      return (at) => view.getUint32(at, true);
    case 'i16':
      return (at) => view.getInt16(at, true);
    case 'u16':
      return (at) => view.getUint16(at, true);
    case 'i8':
      return (at) => view.getInt8(at);
    case 'u8':
    case 'bool':
      return (at) => view.getUint8(at);
    case 'f8_e4m3':
    case 'f8_e5m2':
      throw new MiniGptError('ERR_UNSUPPORTED', `numbers of the type ${dtype} are not read; expected f16, bf16 or f32`);
  }
}

/** IEEE half precision: 1 sign bit, 5 exponent bits (bias 15), 10 fraction bits. */
export function halfToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
