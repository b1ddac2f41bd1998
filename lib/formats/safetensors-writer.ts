// Writes safetensors files of float32 tensors: a JSON header of whole 8 bytes, then the numbers end to end, in the order given.
import { MiniGptError } from '../errors.js';
import { replaceFile } from './replaced-file.js';
import { shapeText, valueCount } from './tensor.js';

/** A tensor to be written: `values` row-major, as many as the shape has. */
export interface TensorValues {
  name: string;
  shape: number[];
  values: Float32Array;
}

/**
 * Puts the file at `path` in one step: written aside, on the disk, renamed; the same tensors and metadata give the same bytes. Errors:
 * ERR_ARGUMENT (names that clash), ERR_SHAPE (values that do not fill their shape), those of replaceFile; what was at `path` stays then.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorValues[],
  metadata: Record<string, string>,
  signal?: AbortSignal,
): Promise<void> {
  const header = Buffer.from(headerOf(path, tensors, metadata));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  await replaceFile(path, [length, header, ...tensors.map(({ values }) => bytesOf(values))], signal);
}

function headerOf(path: string, tensors: readonly TensorValues[], metadata: Record<string, string>): string {
  const entries = new Map<string, unknown>([['__metadata__', metadata]]);
  let begin = 0;
  for (const { name, shape, values } of tensors) {
    if (entries.has(name))
      throw new MiniGptError('ERR_ARGUMENT', `${path}: the tensor name '${name}' is taken; expected different names`);
    const count = valueCount(`${path}: ${name}`, shape);
    if (count !== values.length) {
      throw new MiniGptError(
        'ERR_SHAPE',
        `${path}: ${name} of shape ${shapeText(shape)} has ${count} values, found ${values.length}`,
      );
    }
    const end = begin + values.byteLength;
    entries.set(name, { dtype: 'F32', shape, data_offsets: [begin, end] });
    begin = end;
  }
  const text = JSON.stringify(Object.fromEntries(entries));
  // numbers begin at a multiple of 8 in the file, so that a mapped file can be read in place
  return text + ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
