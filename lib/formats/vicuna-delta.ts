// Vicuna v0 was published as a difference to LLaMA: target = base + delta in half precision, with one row more than LLaMA has.
import type { Addon } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { toFloat32 } from './numbers.js';
import { contiguousStrides, shapeText, valueCount, type DType, type LazyTensor } from './tensor.js';

export type HalfMath = Pick<Addon, 'addHalf' | 'encodeRows'>;

/**
 * The tensor `base + delta`, computed when it is read, each part rounded to half precision first. `delta` may have more rows
 * than `base` by one (the added `[PAD]` of v0): the base counts as zero there.
 * Errors: ERR_SHAPE (other shapes), ERR_UNSUPPORTED (numbers that are no floats).
 */
export function addDelta(base: LazyTensor, delta: LazyTensor, native: HalfMath): LazyTensor {
  const rows = (shape: readonly number[]): number => (shape.length > 1 ? shape[0]! : 0);
  const added = rows(delta.shape) - rows(base.shape);
  if (
    delta.shape.length !== base.shape.length ||
    delta.shape.slice(1).join() !== base.shape.slice(1).join() ||
    (delta.shape.length > 1 ? added !== 0 && added !== 1 : delta.shape[0] !== base.shape[0])
  ) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `${delta.name}: the delta ${delta.file} has the shape ${shapeText(delta.shape)} and the base ${base.file} ${shapeText(base.shape)}; ` +
        'expected equal shapes, or one row more in the delta. Are both of the same size (7B, 13B)?',
    );
  }
  const inBase = valueCount(base.name, base.shape);
  const total = valueCount(delta.name, delta.shape);
  return {
    name: delta.name,
    dtype: 'f16',
    shape: delta.shape,
    strides: contiguousStrides(delta.shape),
    file: delta.file,
    async read(from = 0, count = total - from) {
      const differences = toHalf(delta.dtype, await delta.read(from, count), native);
      const known = Math.max(0, Math.min(count, inBase - from));
      const origin = new Uint8Array(count * 2);
      if (known) origin.set(toHalf(base.dtype, await base.read(from, known), native));
      return native.addHalf(origin, differences);
    },
  };
}

function toHalf(dtype: DType, bytes: Uint8Array, native: HalfMath): Uint8Array {
  if (dtype === 'f16') return bytes;
  if (dtype !== 'f32' && dtype !== 'bf16' && dtype !== 'f64')
    throw new MiniGptError('ERR_UNSUPPORTED', `a delta cannot be added to numbers of the type ${dtype}`);
  const values = toFloat32(dtype, bytes);
  return native.encodeRows('f16', values.length, values);
}
