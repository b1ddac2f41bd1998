// Writes PyTorch checkpoints as torch.save does: a zip archive with a pickle that names tensors and one entry a storage.
import { MiniGptError } from '../errors.js';
import { replaceFile } from './replaced-file.js';
import type { TensorValues } from './safetensors-writer.js';
import { contiguousStrides, shapeText, valueCount } from './tensor.js';
import { storedZip } from './zip-writer.js';

/** The archive's own folder. torch.save takes the file's name; a fixed one gives the same bytes whatever the file is called. */
const FOLDER = 'archive';

/**
 * Puts `{entry: OrderedDict(tensors)}` of float32 tensors at `path`, which `torch.load` reads, also with `weights_only=True`. Written aside
 * and renamed; the same tensors give the same bytes. Errors: ERR_SHAPE, ERR_UNSUPPORTED (4 GiB or more), those of replaceFile.
 */
export async function writePth(
  path: string,
  entry: string,
  tensors: readonly TensorValues[],
  signal?: AbortSignal,
): Promise<void> {
  for (const { name, shape, values } of tensors) {
    const count = valueCount(`${path}: ${name}`, shape);
    if (count !== values.length) {
      throw new MiniGptError(
        'ERR_SHAPE',
        `${path}: ${name} of shape ${shapeText(shape)} has ${count} values, found ${values.length}`,
      );
    }
  }
  const entries = [
    { name: `${FOLDER}/data.pkl`, bytes: pickleOf(entry, tensors) },
    { name: `${FOLDER}/byteorder`, bytes: Buffer.from('little') },
    ...tensors.map(({ values }, i) => ({
      name: `${FOLDER}/data/${i}`,
      bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
    })),
    { name: `${FOLDER}/version`, bytes: Buffer.from('3\n') },
  ];
  await replaceFile(path, storedZip(path, entries), signal);
}

/** `{entry: OrderedDict([(name, tensor), ...])}` in protocol 2; the storage of tensor i is the entry data/i. */
function pickleOf(entry: string, tensors: readonly TensorValues[]): Buffer {
  const pickle = new Pickle();
  pickle.op('}').text(entry);
  pickle.orderedDict().op('(');
  for (const [i, { name, shape, values }] of tensors.entries()) {
    pickle.text(name).global('torch._utils', '_rebuild_tensor_v2').op('(');
    pickle.op('(').text('storage').global('torch', 'FloatStorage').text(String(i)).text('cpu').whole(values.length);
    pickle.op('t').op('Q'); // the tuple is a persistent id
    pickle.whole(0).wholes(shape).wholes(contiguousStrides(shape)); // offset, sizes, strides
    pickle.op('\x89').orderedDict(); // requires no gradient, has no hooks
    pickle.op('t').op('R');
  }
  pickle.op('u').op('s');
  return pickle.end();
}

/** Opcodes of protocol 2, as Python's pickletools names them beside each. */
class Pickle {
  readonly #parts: Buffer[] = [Buffer.from('8002', 'hex')]; // PROTO 2

  /** One of the opcodes without an argument: } EMPTY_DICT, ( MARK, t TUPLE, Q BINPERSID, R REDUCE, s SETITEM, u SETITEMS, \x89 NEWFALSE. */
  op(code: string): this {
    this.#parts.push(Buffer.from(code, 'latin1'));
    return this;
  }

  /** BINUNICODE */
  text(text: string): this {
    const bytes = Buffer.from(text, 'utf8');
    const head = Buffer.alloc(5, 'X');
    head.writeUInt32LE(bytes.length, 1);
    this.#parts.push(head, bytes);
    return this;
  }

  /** GLOBAL */
  global(module: string, name: string): this {
    return this.op(`c${module}\n${name}\n`);
  }

  /** BININT, or LONG1 from 2^31 on. */
  whole(value: number): this {
    const bytes = Buffer.alloc(value < 2 ** 31 ? 5 : 10);
    if (value < 2 ** 31) {
      bytes.write('J');
      bytes.writeInt32LE(value, 1);
    } else {
      bytes.write('\x8a\x08', 'latin1');
      bytes.writeBigInt64LE(BigInt(value), 2);
    }
    this.#parts.push(bytes);
    return this;
  }

  /** A tuple of whole numbers. */
  wholes(values: readonly number[]): this {
    this.op('(');
    for (const value of values) this.whole(value);
    return this.op('t');
  }

  /** A new OrderedDict: EMPTY_TUPLE, REDUCE. */
  orderedDict(): this {
    return this.global('collections', 'OrderedDict').op(')').op('R');
  }

  /** STOP */
  end(): Buffer {
    return Buffer.concat([...this.#parts, Buffer.from('.')]);
  }
}
