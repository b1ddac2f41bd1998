// PyTorch checkpoints (`.pth`, `.bin`): a zip archive with a pickle that names tensors and one entry a storage.
import { MiniGptError } from '../errors.js';
import { InputFile } from './input-file.js';
import { PickleGlobal, PickleOpaque, readPickle, type PickleValue } from './pickle.js';
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
import { ZipArchive } from './zip.js';

const LARGEST_PICKLE = 64 << 20;
/** A tensor that repeats its storage (strides of 0) unfolds to this many values at most. */
const LARGEST_UNFOLDED = 1 << 24;
/** Pairs that dictionaries are copied from, all together. A dictionary that a pickle keeps can be named again in three bytes. */
const MOST_COPIED = 1_000_000;

const STORAGE_TYPES: Readonly<Record<string, DType>> = {
  DoubleStorage: 'f64',
  FloatStorage: 'f32',
  HalfStorage: 'f16',
  BFloat16Storage: 'bf16',
  LongStorage: 'i64',
  IntStorage: 'i32',
  ShortStorage: 'i16',
  CharStorage: 'i8',
  ByteStorage: 'u8',
  BoolStorage: 'bool',
  UntypedStorage: 'u8',
};
const TORCH_TYPES: Readonly<Record<string, DType>> = {
  float64: 'f64',
  float32: 'f32',
  float16: 'f16',
  bfloat16: 'bf16',
  float8_e4m3fn: 'f8_e4m3',
  float8_e5m2: 'f8_e5m2',
  int64: 'i64',
  uint64: 'u64',
  int32: 'i32',
  uint32: 'u32',
  int16: 'i16',
  uint16: 'u16',
  int8: 'i8',
  uint8: 'u8',
  bool: 'bool',
};
/** Entries of the top level that hold the weights, in the order they are looked for. */
const WEIGHT_ENTRIES = ['model', 'state_dict', 'module'];

/** A persistent id of the pickle: `key` names the entry with the numbers. */
class Storage {
  constructor(
    readonly key: string,
    readonly dtype: DType,
    readonly values: number,
  ) {}
}

/** Opens a checkpoint that torch.save wrote. Errors: those of InputFile.open, ERR_FILE_FORMAT, ERR_UNSUPPORTED. */
export async function openPth(path: string): Promise<Checkpoint> {
  const file = await InputFile.open(path);
  try {
    await refuseOldFormats(file);
    return await readArchive(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function refuseOldFormats(file: InputFile): Promise<void> {
  const head = await file.read(0, Math.min(file.size, 512));
  // The first pickle of torch.save before 1.6 is the number 0x1950a86a20f9469cfc6c.
  if (head.includes(Buffer.from('8a0a6cfc9c46f9206aa85019', 'hex')) && head[0] === 0x80) {
    throw new MiniGptError(
      'ERR_UNSUPPORTED',
      `${file.path} is in PyTorch's format from before version 1.6 (no zip archive); load it with PyTorch and save it again`,
    );
  }
  if (head.toString('latin1', 257, 262) === 'ustar') {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path} is a tar archive; expected the zip archive that PyTorch saves. Is it to be unpacked first?`,
    );
  }
  if (head.toString('latin1', 0, 4) !== 'PK\x03\x04') {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path} begins with the bytes ${head.toString('hex', 0, 4)}; expected 504b0304, the zip archive that PyTorch saves`,
    );
  }
}

async function readArchive(file: InputFile): Promise<Checkpoint> {
  const zip = await ZipArchive.open(file);
  const pickleEntry = [...zip.entries.values()].find((entry) => /^[^/]+\/data\.pkl$/.test(entry.name));
  if (!pickleEntry) {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path} is a zip archive without NAME/data.pkl; expected one that PyTorch saved`,
    );
  }
  if (pickleEntry.size > LARGEST_PICKLE) {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path}: data.pkl has ${pickleEntry.size} bytes; expected at most ${LARGEST_PICKLE}`,
    );
  }
  const folder = pickleEntry.name.slice(0, -'data.pkl'.length);
  if (zip.entries.has(`${folder}byteorder`)) {
    const order = Buffer.from(await zip.read(`${folder}byteorder`))
      .toString('latin1')
      .trim();
    if (order !== 'little')
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${file.path} was saved with the byte order '${order.slice(0, 20)}'; expected 'little'`,
      );
  }
  const pickle = new TorchPickle(file.path, zip, folder);
  const top = readPickle(await zip.read(pickleEntry.name), file.path, pickle);
  if (!(top instanceof Map)) {
    const found =
      top instanceof PickleOpaque ? `an object of the class ${top.made?.path ?? 'unknown'}` : 'something else';
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path} holds ${found}; expected a dictionary of tensors (a state dict)`,
    );
  }
  const source = new StorageReader(file, zip, folder);
  const { weights, notes } = stateDict(top);
  const tensors = new Map<string, LazyTensor>();
  for (const [name, value] of weights) {
    if (typeof name !== 'string' || !(value instanceof TensorPlan)) continue;
    tensors.set(name, new PthTensor(name, value, source));
  }
  if (!tensors.size)
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path} holds no tensors${notes.length ? ` (${notes.join('; ')})` : ''}`,
    );
  return {
    path: file.path,
    format: 'pth',
    files: [file.path],
    tensors,
    notes,
    regions: () => zip.regions(),
    close: () => file.close(),
  };
}

/** The dictionary with the weights: the top level, or what trainers put under 'model', 'state_dict' or 'module'. */
function stateDict(top: Map<PickleValue, PickleValue>): { weights: Map<PickleValue, PickleValue>; notes: string[] } {
  for (const entry of WEIGHT_ENTRIES) {
    const inner = top.get(entry);
    if (!(inner instanceof Map)) continue;
    const others = [...top.keys()].filter((key) => typeof key === 'string' && key !== entry);
    return {
      weights: inner,
      notes: [`weights under '${entry}'`, ...(others.length ? [`also holds ${others.slice(0, 20).join(', ')}`] : [])],
    };
  }
  const others = [...top]
    .filter(([key, value]) => typeof key === 'string' && !(value instanceof TensorPlan))
    .map(([key]) => key);
  return { weights: top, notes: others.length ? [`also holds ${others.slice(0, 20).join(', ')}`] : [] };
}

/** What _rebuild_tensor_v2 was given, checked against the storage. */
class TensorPlan {
  constructor(
    readonly storage: Storage,
    readonly dtype: DType,
    readonly offset: number,
    readonly shape: number[],
    readonly strides: number[],
  ) {}
}

/** The calls and persistent ids of torch's pickles. */
class TorchPickle {
  readonly #path: string;
  readonly #zip: ZipArchive;
  readonly #folder: string;
  #copied = 0;

  constructor(path: string, zip: ZipArchive, folder: string) {
    this.#path = path;
    this.#zip = zip;
    this.#folder = folder;
  }

  persistent(id: PickleValue): PickleValue {
    if (!Array.isArray(id) || id[0] !== 'storage' || !(id[1] instanceof PickleGlobal) || typeof id[2] !== 'string') {
      this.#fail("a persistent id is not ('storage', class, key, device, size)");
    }
    const [, type, key, , values] = id as [string, PickleGlobal, string, unknown, unknown];
    const dtype = STORAGE_TYPES[type.name];
    // Quantized and complex storages: their tensors become opaque, whoever needs one is told it is missing.
    if (!dtype) return new PickleOpaque(type, id);
    const count = this.#count(values, "a storage's size");
    const entry = this.#zip.entries.get(`${this.#folder}data/${key}`);
    if (!entry) this.#fail(`the storage data/${key} is missing from the archive`);
    if (entry.size !== count * DTYPE_BYTES[dtype]) {
      this.#fail(
        `the storage data/${key} has ${entry.size} bytes; expected ${count * DTYPE_BYTES[dtype]} (${count} values of ${dtype})`,
      );
    }
    return new Storage(key, dtype, count);
  }

  call(callee: PickleGlobal, args: readonly PickleValue[]): PickleValue | undefined {
    switch (callee.path) {
      case 'collections.OrderedDict':
        return this.#dictionary(args[0]);
      case 'torch._utils._rebuild_tensor':
      case 'torch._utils._rebuild_tensor_v2':
        return this.#tensor(args);
      case 'torch._utils._rebuild_tensor_v3':
        return this.#tensor(args, args[6]);
      case 'torch._utils._rebuild_parameter':
      case 'torch._utils._rebuild_parameter_with_state':
        return args[0];
      case 'torch._tensor._rebuild_from_type_v2':
        return args[0] instanceof PickleGlobal && Array.isArray(args[2]) && args[0].path !== callee.path
          ? this.call(args[0], args[2])
          : undefined;
      case 'torch.Size':
        return args[0];
      default:
        return undefined;
    }
  }

  #dictionary(pairs: PickleValue): Map<PickleValue, PickleValue> {
    const made = new Map<PickleValue, PickleValue>();
    this.#copied += pairs instanceof Map ? pairs.size : Array.isArray(pairs) ? pairs.length : 0;
    if (this.#copied > MOST_COPIED) this.#fail(`its dictionaries are made of more than ${MOST_COPIED} copied pairs`);
    if (pairs instanceof Map) for (const [key, value] of pairs) made.set(key, value);
    if (Array.isArray(pairs)) {
      for (const pair of pairs) {
        if (!Array.isArray(pair) || pair.length !== 2)
          this.#fail('an OrderedDict is made of something else than pairs');
        made.set(pair[0], pair[1]);
      }
    }
    return made;
  }

  #tensor(args: readonly PickleValue[], type?: PickleValue): TensorPlan | undefined {
    const [storage, offset, shape, strides] = args;
    if (!(storage instanceof Storage)) return undefined;
    const dtype =
      type === undefined ? storage.dtype : type instanceof PickleGlobal ? TORCH_TYPES[type.name] : undefined;
    if (!dtype) return undefined;
    const sizes = this.#counts(shape, 'a shape');
    const steps = this.#counts(strides, 'strides');
    if (sizes.length !== steps.length || sizes.length > 16)
      this.#fail(`a tensor has ${sizes.length} sizes and ${steps.length} strides`);
    const start = this.#count(offset, "a tensor's offset");
    const values = valueCount(`${this.#path}: a tensor`, sizes);
    const held = Math.floor((storage.values * DTYPE_BYTES[storage.dtype]) / DTYPE_BYTES[dtype]);
    const end = values === 0 ? start : sizes.reduce((last, size, d) => last + (size - 1) * steps[d]!, start) + 1;
    if (end > held)
      this.#fail(
        `a tensor of shape ${shapeText(sizes)} reaches to value ${end} of the storage data/${storage.key}, which has ${held}`,
      );
    if (values > held && values > LARGEST_UNFOLDED)
      this.#fail(`a tensor of shape ${shapeText(sizes)} repeats a storage of ${held} values`);
    return new TensorPlan(storage, dtype, start, sizes, steps);
  }

  #counts(value: PickleValue, what: string): number[] {
    if (!Array.isArray(value)) this.#fail(`${what} is not a tuple`);
    return value.map((item) => this.#count(item, what));
  }

  #count(value: PickleValue, what: string): number {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
      this.#fail(`${what} is not a whole number from 0`);
    return value;
  }

  #fail(why: string): never {
    throw new MiniGptError('ERR_FILE_FORMAT', `${this.#path}: ${why}`);
  }
}

/** Reads bytes of storages; keeps the last one that had to be unpacked or gathered from. */
class StorageReader {
  readonly #file: InputFile;
  readonly #zip: ZipArchive;
  readonly #folder: string;
  readonly #positions = new Map<string, Promise<number>>();
  #kept: { what: string; bytes: Uint8Array } | undefined;

  constructor(file: InputFile, zip: ZipArchive, folder: string) {
    this.#file = file;
    this.#zip = zip;
    this.#folder = folder;
  }

  get path(): string {
    return this.#file.path;
  }

  /** `length` bytes of a storage from `position`. `keep`: the caller will ask for the same again. */
  async read(key: string, position: number, length: number, keep = false): Promise<Uint8Array> {
    const name = `${this.#folder}data/${key}`;
    if (!this.#zip.entries.get(name)!.stored) {
      if (this.#kept?.what !== name) this.#kept = { what: name, bytes: await this.#zip.read(name) };
      return this.#kept.bytes.subarray(position, position + length);
    }
    const what = `${name}:${position}:${length}`;
    if (this.#kept?.what === what) return this.#kept.bytes;
    let start = this.#positions.get(name);
    if (!start) this.#positions.set(name, (start = this.#zip.position(name)));
    const bytes = await this.#file.read((await start) + position, length);
    if (keep) this.#kept = { what, bytes };
    return bytes;
  }
}

class PthTensor implements LazyTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly file: string;
  readonly #plan: TensorPlan;
  readonly #source: StorageReader;

  constructor(
    readonly name: string,
    plan: TensorPlan,
    source: StorageReader,
  ) {
    this.dtype = plan.dtype;
    this.shape = plan.shape;
    this.strides = plan.strides;
    this.file = source.path;
    this.#plan = plan;
    this.#source = source;
  }

  async read(from = 0, count = valueCount(this.name, this.shape) - from): Promise<Uint8Array> {
    const width = DTYPE_BYTES[this.dtype];
    const { storage, offset } = this.#plan;
    if (from < 0 || count < 0 || from + count > valueCount(this.name, this.shape)) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${this.name}: values ${from} to ${from + count} of a tensor of shape ${shapeText(this.shape)}`,
      );
    }
    if (count === 0) return new Uint8Array(0);
    const plain = contiguousStrides(this.shape);
    if (this.shape.every((size, d) => size === 1 || this.strides[d] === plain[d])) {
      return plainBytes(await this.#source.read(storage.key, (offset + from) * width, count * width));
    }
    const span = this.shape.reduce((last, size, d) => last + (size - 1) * this.strides[d]!, 0) + 1;
    return gather(
      await this.#source.read(storage.key, offset * width, span * width, true),
      width,
      this.shape,
      this.strides,
      from,
      count,
    );
  }
}

/** Values `from` to `from + count`, counted row-major, of a tensor that lies in `held` with `strides`. */
function gather(
  held: Uint8Array,
  width: number,
  shape: readonly number[],
  strides: readonly number[],
  from: number,
  count: number,
): Uint8Array {
  const out = new Uint8Array(count * width);
  const place = new Array<number>(shape.length).fill(0);
  let at = 0; // of the value at `place`, in values
  for (let d = shape.length - 1, rest = from; d >= 0; d--) {
    place[d] = rest % shape[d]!;
    rest = Math.floor(rest / shape[d]!);
    at += place[d]! * strides[d]!;
  }
  for (let i = 0; i < count; i++) {
    for (let byte = 0; byte < width; byte++) out[i * width + byte] = held[at * width + byte]!;
    for (let d = shape.length - 1; d >= 0; d--) {
      at += strides[d]!;
      if (++place[d]! < shape[d]!) break;
      at -= shape[d]! * strides[d]!;
      place[d] = 0;
    }
  }
  return out;
}
