// Values on their way into the model file: read row by row, with what the target wants done to them.
import type { TypeName } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { toFloat32 } from '../formats/numbers.js';
import { DTYPE_BYTES, contiguousStrides, shapeText, valueCount, type LazyTensor } from '../formats/tensor.js';

/** A piece of about this size is read, encoded and written at a time. */
const CHUNK_BYTES = 8 << 20;

/** A tensor of the model file, and where its values come from. */
export interface PlannedTensor {
  readonly name: string;
  /** Row-major, PyTorch's order. */
  readonly shape: readonly number[];
  readonly type: TypeName;
  /** Files that are read for it, by role. */
  readonly sources: readonly { role: string; file: string }[];
  /** Which tensor of which file it is made from, for errors. */
  readonly origin: string;
  /** Its values in order: whole rows of raw numbers of the type `source`. */
  values(): AsyncIterable<{ source: TypeName; values: Uint8Array }>;
}

/** A tensor written from a checkpoint's; `shape` may flatten trailing or drop leading sizes of 1, the order stays. */
export function planned(
  name: string,
  shape: readonly number[],
  type: TypeName,
  sources: PlannedTensor['sources'],
  tensor: LazyTensor,
): PlannedTensor {
  if (valueCount(name, shape) !== valueCount(tensor.name, tensor.shape)) {
    throw new MiniGptError(
      'ERR_INTERNAL',
      `${name} of shape ${shapeText(shape)} is planned from ${shapeText(tensor.shape)}`,
    );
  }
  return { name, shape, type, sources, origin: `${tensor.file}: ${tensor.name}`, values: () => rowsOf(tensor, shape) };
}

async function* rowsOf(
  tensor: LazyTensor,
  shape: readonly number[],
): AsyncGenerator<{ source: TypeName; values: Uint8Array }> {
  const total = valueCount(tensor.name, shape);
  const row = shape.at(-1) ?? 1;
  const step = row * Math.max(1, Math.floor(CHUNK_BYTES / (row * DTYPE_BYTES[tensor.dtype])));
  for (let from = 0; from < total; from += step) {
    const values = await tensor.read(from, Math.min(step, total - from));
    if (tensor.dtype === 'f32' || tensor.dtype === 'f16' || tensor.dtype === 'bf16')
      yield { source: tensor.dtype, values };
    else yield { source: 'f32', values: new Uint8Array(toFloat32(tensor.dtype, values).buffer) };
  }
}

/** A vector of float32 that no checkpoint holds as it is. */
export function vector(name: string, values: Float32Array): LazyTensor {
  return {
    name,
    dtype: 'f32',
    shape: [values.length],
    strides: [1],
    file: '',
    read: async (from = 0, count = values.length - from) => new Uint8Array(values.slice(from, from + count).buffer),
  };
}

/** q_bias, zeros and v_bias one after the other: keys have no bias in this ViT. */
export function qkvBias(q: LazyTensor, v: LazyTensor): LazyTensor {
  const width = q.shape[0]!;
  return {
    name: `${q.name}, ${v.name}`,
    dtype: 'f32',
    shape: [3 * width],
    strides: [1],
    file: q.file,
    async read(from = 0, count = 3 * width - from) {
      const values = new Float32Array(3 * width);
      values.set(toFloat32(q.dtype, await q.read()), 0);
      values.set(toFloat32(v.dtype, await v.read()), 2 * width);
      return new Uint8Array(values.slice(from, from + count).buffer);
    },
  };
}

/**
 * Rows of q or k in the order of adjacent rotary pairs. Hugging Face rotates row j of a head with row j + D/2; llama files
 * expect them side by side, as rows 2j and 2j + 1.
 */
export function rotaryPairs(tensor: LazyTensor, heads: number): LazyTensor {
  const [rows, row] = [tensor.shape[0]!, tensor.shape[1] ?? 1];
  const head = rows / heads;
  const rowBytes = row * DTYPE_BYTES[tensor.dtype];
  const total = rows * row;
  return {
    ...tensor,
    name: tensor.name,
    dtype: tensor.dtype,
    shape: tensor.shape,
    file: tensor.file,
    strides: contiguousStrides(tensor.shape),
    async read(from = 0, count = total - from) {
      // Whole heads around what is asked for.
      const first = Math.floor(from / (head * row));
      const last = Math.ceil((from + count) / (head * row));
      const values = await tensor.read(first * head * row, (last - first) * head * row);
      const paired = new Uint8Array(values.length);
      for (let h = 0; h < last - first; h++) {
        for (let j = 0; j < head; j++) {
          const source = h * head + (j % 2) * (head / 2) + Math.floor(j / 2);
          paired.set(values.subarray(source * rowBytes, (source + 1) * rowBytes), (h * head + j) * rowBytes);
        }
      }
      const start = (from - first * head * row) * DTYPE_BYTES[tensor.dtype];
      return paired.subarray(start, start + count * DTYPE_BYTES[tensor.dtype]);
    },
  };
}
