// Builds checkpoints for tests, good and hostile ones: zip archives, pickles opcode by opcode, safetensors.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';
import { MiniGptError } from '../lib/errors.js';

/** A folder that is removed when the process ends. */
export function temporaryFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `minigpt4-${name}-`));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface ZipEntry {
  name: string;
  bytes: Uint8Array;
  deflated?: boolean;
  /** Stated in place of what is true. */
  statedSize?: number;
  flags?: number;
  crc32?: number;
}

/** A zip archive; `sizes64` states every size and offset in 64 bits, as archives beyond 4 GB do. */
export function zip(entries: readonly ZipEntry[], sizes64 = false): Buffer {
  const files: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, bytes, deflated = false, statedSize = bytes.length, flags = 0, crc32: stated } of entries) {
    const data = deflated ? deflateRawSync(bytes) : Buffer.from(bytes);
    const label = Buffer.from(name);
    const head = Buffer.alloc(26);
    head.writeUInt16LE(20, 0); // version needed
    head.writeUInt16LE(flags, 2);
    head.writeUInt16LE(deflated ? 8 : 0, 4);
    head.writeUInt32LE(stated ?? crc32(bytes), 10);
    const extra = Buffer.alloc(sizes64 ? 28 : 0);
    if (sizes64) {
      extra.writeUInt16LE(1, 0);
      extra.writeUInt16LE(24, 2);
      [statedSize, data.length, offset].forEach((size, i) => extra.writeBigUInt64LE(BigInt(size), 4 + 8 * i));
    }
    head.writeUInt32LE(sizes64 ? 0xffffffff : data.length, 14);
    head.writeUInt32LE(sizes64 ? 0xffffffff : statedSize, 18);
    head.writeUInt16LE(label.length, 22);
    const central = Buffer.alloc(14);
    central.writeUInt32LE(sizes64 ? 0xffffffff : offset, 10);
    const centralHead = Buffer.from(head);
    centralHead.writeUInt16LE(extra.length, 24);
    directory.push(Buffer.from('PK\x01\x02\x14\x00'), centralHead, central, label, extra);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), head, label, data]);
    files.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const tail: Buffer[] = [];
  if (sizes64) {
    const record = Buffer.alloc(56);
    record.write('PK\x06\x06', 0, 'latin1');
    record.writeBigUInt64LE(44n, 4);
    record.writeBigUInt64LE(BigInt(entries.length), 24);
    record.writeBigUInt64LE(BigInt(entries.length), 32);
    record.writeBigUInt64LE(BigInt(central.length), 40);
    record.writeBigUInt64LE(BigInt(offset), 48);
    const locator = Buffer.alloc(20);
    locator.write('PK\x06\x07', 0, 'latin1');
    locator.writeBigUInt64LE(BigInt(offset + central.length), 8);
    locator.writeUInt32LE(1, 16);
    tail.push(record, locator);
  }
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(sizes64 ? 0xffff : entries.length, 8);
  end.writeUInt16LE(sizes64 ? 0xffff : entries.length, 10);
  end.writeUInt32LE(sizes64 ? 0xffffffff : central.length, 12);
  end.writeUInt32LE(sizes64 ? 0xffffffff : offset, 16);
  return Buffer.concat([...files, central, ...tail, end]);
}

/** Pieces of a pickle; strings are the names of opcodes below, or bytes. */
export const op = {
  proto: Buffer.from([0x80, 2]),
  mark: Buffer.from('('),
  stop: Buffer.from('.'),
  dict: Buffer.from('}'),
  list: Buffer.from(']'),
  emptyTuple: Buffer.from(')'),
  tuple: Buffer.from('t'),
  setItems: Buffer.from('u'),
  append: Buffer.from('a'),
  reduce: Buffer.from('R'),
  build: Buffer.from('b'),
  persistent: Buffer.from('Q'),
  dup: Buffer.from('2'),
  no: Buffer.from([0x89]),
  put: (index: number) => Buffer.from([0x71, index]),
  get: (index: number) => Buffer.from([0x68, index]),
  text: (value: string) => {
    const bytes = Buffer.from(value);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return Buffer.concat([Buffer.from('X'), length, bytes]);
  },
  int: (value: number) => {
    const bytes = Buffer.alloc(5);
    bytes.write('J', 0, 'latin1');
    bytes.writeInt32LE(value, 1);
    return bytes;
  },
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`),
};

export const tupleOf = (...items: Buffer[]): Buffer => Buffer.concat([op.mark, ...items, op.tuple]);

export interface TensorRecipe {
  storage: string;
  storageClass?: string;
  /** Values of the storage. */
  values: number;
  offset?: number;
  shape: number[];
  strides: number[];
}

/** The opcodes that rebuild a tensor as torch.save writes them. */
export function tensorOpcodes({
  storage,
  storageClass = 'FloatStorage',
  values,
  offset = 0,
  shape,
  strides,
}: TensorRecipe): Buffer {
  const id = tupleOf(
    op.text('storage'),
    op.global('torch', storageClass),
    op.text(storage),
    op.text('cpu'),
    op.int(values),
  );
  const ints = (numbers: number[]) => tupleOf(...numbers.map(op.int));
  const hooks = Buffer.concat([op.global('collections', 'OrderedDict'), op.emptyTuple, op.reduce]);
  return Buffer.concat([
    op.global('torch._utils', '_rebuild_tensor_v2'),
    tupleOf(id, op.persistent, op.int(offset), ints(shape), ints(strides), op.no, hooks),
    op.reduce,
  ]);
}

/** A state dict's pickle: names and the opcodes of their values. */
export function statePickle(items: Readonly<Record<string, Buffer>>): Buffer {
  const pairs = Object.entries(items).flatMap(([name, value]) => [op.text(name), value]);
  return Buffer.concat([op.proto, op.dict, op.mark, ...pairs, op.setItems, op.stop]);
}

/** A whole `.pth` of a pickle and its storages. */
export function pth(
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = {},
  options: Partial<ZipEntry> & { sizes64?: boolean } = {},
): Buffer {
  const { sizes64, ...entry } = options;
  return zip(
    [
      { name: 'a/data.pkl', bytes: pickle, ...entry },
      { name: 'a/byteorder', bytes: Buffer.from('little') },
      ...Object.entries(storages).map(([key, bytes]) => ({ name: `a/data/${key}`, bytes, ...entry })),
    ],
    sizes64,
  );
}

export const floats = (...values: number[]): Buffer => Buffer.from(new Float32Array(values).buffer);

export interface StoredTensor {
  dtype: string;
  shape: readonly number[];
  bytes: Uint8Array;
}

/** A safetensors file. `header` may change the header before it is written. */
export function safetensors(
  tensors: Readonly<Record<string, StoredTensor>>,
  header: (entries: Record<string, unknown>) => unknown = (entries) => entries,
): Buffer {
  const entries: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    entries[name] = { dtype: dtype.toUpperCase(), shape, data_offsets: [offset, (offset += bytes.length)] };
  }
  const text = Buffer.from(JSON.stringify(header(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...Object.values(tensors).map(({ bytes }) => bytes)]);
}

/** Writes and gives the path. */
export function write(folder: string, name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** The error of ours that `work` ends in; anything else is a failure of the test. */
export async function errorOf(work: () => Promise<unknown>): Promise<MiniGptError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof MiniGptError) return error;
    throw new Error(`not a MiniGptError: ${String(error)}`, { cause: error });
  }
  throw new Error('no error');
}

/** Copies of a file with bits turned over or its end cut off, the same ones every time. */
export function* damaged(original: Uint8Array, count: number): Generator<Uint8Array> {
  let state = 0x2545f491;
  const random = (below: number) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  // Most of what can go wrong stands at the beginning and at the end.
  const place = () =>
    [random(Math.min(original.length, 1500)), Math.max(0, original.length - 1 - random(1500)), random(original.length)][
      random(3)
    ]!;
  for (let i = 0; i < count; i++) {
    if (i % 4 === 0) {
      yield original.slice(0, random(original.length));
      continue;
    }
    const copy = original.slice();
    for (let n = 1 + random(4); n > 0; n--) {
      if (i % 4 === 1) copy[place()]! ^= 1 << random(8);
      else copy[place()] = i % 4 === 2 ? 255 : random(256);
    }
    yield copy;
  }
}
