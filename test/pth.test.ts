// PyTorch checkpoints: what torch.save writes is read, nothing in it is executed, and damaged or hostile files give errors.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { hashSources } from '../lib/convert/sources.js';
import { openCheckpoint } from '../lib/formats/checkpoint.js';
import { openGguf } from '../lib/formats/gguf.js';
import { openPth } from '../lib/formats/pth.js';
import { toFloat32 } from '../lib/formats/numbers.js';
import { chunks, type Checkpoint } from '../lib/formats/tensor.js';
import { root } from './checkout.js';
import {
  damaged,
  errorOf,
  floats,
  op,
  pth,
  statePickle,
  temporaryFolder,
  tensorOpcodes,
  tupleOf,
  write,
  zip,
  type TensorRecipe,
} from './checkpoint-builder.js';

const test = suite('pth');
const folder = temporaryFolder('pth');
const fixture = join(root, 'test/fixtures/tiny-gqa');
const storage6 = floats(0, 1, 2, 3, 4, 5);

async function valuesOf(checkpoint: Checkpoint, name: string): Promise<number[]> {
  const tensor = checkpoint.tensors.get(name)!;
  return [...toFloat32(tensor.dtype, await tensor.read())];
}

/** Opens a file with one tensor `t` over six floats and gives its values. */
async function valuesThrough(
  recipe: Partial<TensorRecipe>,
  options: Parameters<typeof pth>[2] = {},
): Promise<number[]> {
  const pickle = statePickle({ t: tensorOpcodes({ storage: '0', values: 6, shape: [6], strides: [1], ...recipe }) });
  const checkpoint = await openPth(write(folder, 'one.pth', pth(pickle, { 0: storage6 }, options)));
  try {
    return await valuesOf(checkpoint, 't');
  } finally {
    await checkpoint.close();
  }
}

test('a flat state dict as PyTorch saved it', async () => {
  const checkpoint = await openCheckpoint(join(fixture, 'eva_vit_g.pth'));
  assert.is(checkpoint.format, 'pth');
  const qkv = checkpoint.tensors.get('blocks.0.attn.qkv.weight')!;
  assert.is(qkv.dtype, 'f16');
  assert.equal([...qkv.shape], [528, 176]);
  assert.is((await qkv.read()).length, 528 * 176 * 2);
  assert.equal([...checkpoint.tensors.get('pos_embed')!.shape], [1, 17, 176]);
  await checkpoint.close();
});

test('weights under "model", beside an optimizer that is left alone', async () => {
  const checkpoint = await openCheckpoint(join(fixture, 'pretrained_minigpt4.pth'));
  assert.equal([...checkpoint.tensors.keys()], ['llama_proj.weight', 'llama_proj.bias']);
  assert.match(checkpoint.notes.join(), /optimizer/);
  await checkpoint.close();
});

test('sharded .bin files hold the numbers that the GGUF file has', async () => {
  const checkpoint = await openCheckpoint(join(fixture, 'vicuna-bin'));
  const gguf = await openGguf(join(fixture, 'vicuna-f16.gguf'));
  const pairs = [
    ['lm_head.weight', 'output.weight'],
    ['model.layers.1.self_attn.v_proj.weight', 'blk.1.attn_v.weight'],
  ];
  for (const [ours, theirs] of pairs) {
    const place = gguf.tensors.find(({ name }) => name === theirs)!;
    const tensor = checkpoint.tensors.get(ours!)!;
    assert.equal([...tensor.shape], [...place.shape]);
    assert.ok(Buffer.from(await tensor.read()).equals(await place.part.read(place.position, place.bytes)), ours);
  }
  await checkpoint.close();
  await gguf.close();
});

test('parts of a tensor, and chunks of whole rows', async () => {
  const checkpoint = await openCheckpoint(join(fixture, 'eva_vit_g.pth'));
  const tensor = checkpoint.tensors.get('patch_embed.proj.weight')!; // [176, 3, 14, 14]
  const whole = Buffer.from(await tensor.read());
  assert.ok(whole.subarray(200, 300).equals(await tensor.read(100, 50)));
  const pieces = [];
  for await (const piece of chunks(tensor, 1000)) pieces.push(piece);
  assert.ok(pieces.every((piece) => piece.length <= 1000 && piece.length % (14 * 2) === 0));
  assert.ok(whole.equals(Buffer.concat(pieces)));
  assert.is((await errorOf(() => tensor.read(0, 176 * 588 + 1))).code, 'ERR_ARGUMENT');
  await checkpoint.close();
});

test('tensors that do not lie row after row', async () => {
  assert.equal(await valuesThrough({ shape: [2, 3], strides: [3, 1] }), [0, 1, 2, 3, 4, 5]);
  assert.equal(await valuesThrough({ shape: [3, 2], strides: [1, 3] }), [0, 3, 1, 4, 2, 5]); // transposed
  assert.equal(await valuesThrough({ shape: [2, 2], strides: [3, 2] }), [0, 2, 3, 5]); // a slice with steps
  assert.equal(await valuesThrough({ shape: [2], strides: [3], offset: 2 }), [2, 5]); // a column
  assert.equal(await valuesThrough({ shape: [2, 2], strides: [0, 1], offset: 4 }), [4, 5, 4, 5]); // expanded
  assert.equal(await valuesThrough({ shape: [1, 1, 6], strides: [99, 7, 1] }), [0, 1, 2, 3, 4, 5]); // sizes of 1 have any stride
  assert.equal(await valuesThrough({ shape: [], strides: [], offset: 3 }), [3]);
  assert.equal(await valuesThrough({ shape: [0, 3], strides: [3, 1] }), []);
});

test('parts of a tensor that does not lie row after row', async () => {
  const pickle = statePickle({ t: tensorOpcodes({ storage: '0', values: 6, shape: [3, 2], strides: [1, 3] }) });
  const checkpoint = await openPth(write(folder, 'parts.pth', pth(pickle, { 0: storage6 })));
  const read = async (from: number, count: number) => [
    ...toFloat32('f32', await checkpoint.tensors.get('t')!.read(from, count)),
  ];
  assert.equal(await read(1, 3), [3, 1, 4]);
  assert.equal(await read(5, 1), [5]);
  await checkpoint.close();
});

test('deflated entries and 64-bit sizes', async () => {
  assert.equal(await valuesThrough({}, { deflated: true }), [0, 1, 2, 3, 4, 5]);
  assert.equal(await valuesThrough({}, { sizes64: true }), [0, 1, 2, 3, 4, 5]);
  assert.equal(await valuesThrough({ shape: [3, 2], strides: [1, 3] }, { deflated: true }), [0, 3, 1, 4, 2, 5]);
});

test('number types by storage class', async () => {
  const stored: [string, Buffer, string, number[]][] = [
    ['HalfStorage', Buffer.from(new Uint16Array([0x3c00, 0xc000, 0x0001]).buffer), 'f16', [1, -2, 2 ** -24]],
    ['BFloat16Storage', Buffer.from(new Uint16Array([0x3f80, 0xc040]).buffer), 'bf16', [1, -3]],
    ['DoubleStorage', Buffer.from(new Float64Array([0.5, -7]).buffer), 'f64', [0.5, -7]],
    ['LongStorage', Buffer.from(new BigInt64Array([-5n, 9n]).buffer), 'i64', [-5, 9]],
    ['IntStorage', Buffer.from(new Int32Array([-5, 9]).buffer), 'i32', [-5, 9]],
    ['ByteStorage', Buffer.from([200, 1]), 'u8', [200, 1]],
    ['BoolStorage', Buffer.from([1, 0]), 'bool', [1, 0]],
  ];
  for (const [storageClass, bytes, dtype, values] of stored) {
    const pickle = statePickle({
      t: tensorOpcodes({ storage: '0', storageClass, values: values.length, shape: [values.length], strides: [1] }),
    });
    const checkpoint = await openPth(write(folder, 'types.pth', pth(pickle, { 0: bytes })));
    assert.is(checkpoint.tensors.get('t')!.dtype, dtype);
    assert.equal(await valuesOf(checkpoint, 't'), values, storageClass);
    await checkpoint.close();
  }
});

test('a Parameter is its tensor; classes that are not known are opaque and never called', async () => {
  const tensor = tensorOpcodes({ storage: '0', values: 6, shape: [6], strides: [1] });
  const parameter = Buffer.concat([
    op.global('torch._utils', '_rebuild_parameter'),
    tupleOf(tensor, op.no, op.dict),
    op.reduce,
  ]);
  const marker = join(folder, 'executed');
  const evil = Buffer.concat([
    op.global('os', 'system'),
    tupleOf(op.text(`touch ${marker}`)),
    op.reduce,
    op.dict,
    op.build,
  ]);
  const path = write(folder, 'opaque.pth', pth(statePickle({ p: parameter, evil, t: tensor }), { 0: storage6 }));
  const checkpoint = await openPth(path);
  assert.equal([...checkpoint.tensors.keys()], ['p', 't']);
  assert.equal(await valuesOf(checkpoint, 'p'), [0, 1, 2, 3, 4, 5]);
  assert.throws(() => readFileSync(marker), /ENOENT/);
  await checkpoint.close();
});

test('an opcode that is not known is named with its offset', async () => {
  const pickle = Buffer.concat([op.proto, op.dict, Buffer.from([0x82, 1]), op.stop]); // EXT1
  const error = await errorOf(() => openPth(write(folder, 'opcode.pth', pth(pickle))));
  assert.is(error.code, 'ERR_FILE_FORMAT');
  assert.match(error.message, /opcode 0x82 at offset 3/);
});

test('what is no PyTorch archive is told apart', async () => {
  const legacy = Buffer.concat([Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex'), Buffer.alloc(100)]);
  const tar = Buffer.alloc(1024);
  tar.write('model.pth', 0);
  tar.write('ustar', 257);
  const cases: [string, Buffer, string, RegExp][] = [
    ['legacy.pth', legacy, 'ERR_UNSUPPORTED', /before version 1\.6/],
    ['tar.pth', tar, 'ERR_FILE_FORMAT', /tar archive/],
    ['empty.pth', Buffer.alloc(0), 'ERR_FILE_FORMAT', /0 bytes/],
    ['text.pth', Buffer.from('hello, this is a text\n'), 'ERR_FILE_FORMAT', /a text file/],
    ['page.pth', Buffer.from('<!DOCTYPE html><html>'), 'ERR_FILE_FORMAT', /web page/],
    [
      'lfs.pth',
      Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:00\n'),
      'ERR_FILE_FORMAT',
      /Git LFS pointer/,
    ],
    ['zeros.pth', Buffer.alloc(2000), 'ERR_FILE_FORMAT', /zeros/],
    ['other.pth', zip([{ name: 'readme.txt', bytes: Buffer.from('x') }]), 'ERR_FILE_FORMAT', /without NAME\/data\.pkl/],
    [
      'module.pth',
      pth(Buffer.concat([op.proto, op.global('torch.nn', 'Linear'), op.emptyTuple, op.reduce, op.stop])),
      'ERR_FILE_FORMAT',
      /class torch\.nn\.Linear/,
    ],
    ['none.pth', pth(statePickle({ epoch: op.int(3) })), 'ERR_FILE_FORMAT', /no tensors/],
  ];
  for (const [name, bytes, code, message] of cases) {
    const error = await errorOf(() => openCheckpoint(write(folder, name, bytes)));
    assert.is(error.code, code, name);
    assert.match(error.message, message, name);
  }
  for (const bytes of ['P', 'PK', 'PK\x03']) {
    const error = await errorOf(() => openPth(write(folder, 'short.bin', bytes)));
    assert.equal([error.code, /expected 504b0304/.test(error.message)], ['ERR_FILE_FORMAT', true], error.message);
  }
  mkdirSync(join(folder, 'directory.pth'));
  assert.is((await errorOf(() => openPth(join(folder, 'directory.pth')))).code, 'ERR_FILE_NOT_FOUND');
  assert.is((await errorOf(() => openPth(join(folder, 'missing.pth')))).code, 'ERR_FILE_NOT_FOUND');
  const big = pth(statePickle({ t: tensorOpcodes({ storage: '0', values: 6, shape: [6], strides: [1] }) }), {
    0: storage6,
  });
  const order = big.indexOf('little');
  big.write('big   ', order);
  assert.is((await errorOf(() => openPth(write(folder, 'order.pth', big)))).code, 'ERR_UNSUPPORTED');
});

test('tensors that do not fit their storage', async () => {
  const recipes: [Partial<TensorRecipe>, RegExp][] = [
    [{ shape: [7] }, /reaches to value 7/],
    [{ shape: [6], offset: 1 }, /reaches to value 7/],
    [{ shape: [2, 3], strides: [4, 1] }, /reaches to value 7/],
    [{ shape: [-1] }, /whole number/],
    [{ shape: [2147483647, 2147483647], strides: [0, 0] }, /which no file can hold/],
    [{ shape: [1 << 30], strides: [0] }, /repeats a storage/],
    [{ shape: [6], strides: [1, 1] }, /1 sizes and 2 strides/],
    [{ values: 7 }, /has 24 bytes; expected 28/],
    [{ storage: '1' }, /data\/1 is missing/],
  ];
  for (const [recipe, message] of recipes) {
    const error = await errorOf(() => valuesThrough(recipe));
    assert.is(error.code, 'ERR_FILE_FORMAT', String(message));
    assert.match(error.message, message);
  }
});

test('pickles that are made to exhaust a reader', async () => {
  const many = (piece: Buffer, count: number) => Buffer.concat(new Array<Buffer>(count).fill(piece));
  const length8 = Buffer.alloc(9, 0xff);
  length8[0] = 0x8d; // BINUNICODE8 of 2^64 - 1 bytes
  const length4 = Buffer.from([0x58, 0xff, 0xff, 0xff, 0xff]);
  const nested = Buffer.concat([many(Buffer.from(']'), 20000), many(op.append, 19999)]);
  const bombs: [string, Buffer, RegExp][] = [
    ['a string longer than the file', Buffer.concat([op.proto, length8, op.stop]), /bytes are to follow/],
    ['the same in 32 bits', Buffer.concat([op.proto, length4, op.stop]), /bytes are to follow/],
    ['a stack without end', Buffer.concat([op.proto, many(Buffer.from('N'), 1_100_000), op.stop]), /stack grows/],
    ['objects without end', Buffer.concat([op.proto, op.list, many(Buffer.from('}a'), 600_000), op.stop]), /objects/],
    ['lists within lists', Buffer.concat([op.proto, nested, op.stop]), /holds something else/],
    [
      'a list that holds itself',
      Buffer.concat([op.proto, op.list, op.put(0), op.get(0), op.append, op.stop]),
      /holds something else/,
    ],
    ['a memo that was never set', Buffer.concat([op.proto, op.get(9), op.stop]), /memo 9/],
    ['an empty stack', Buffer.concat([op.proto, op.reduce, op.stop]), /stack is empty/],
    ['no end', Buffer.concat([op.proto, op.dict]), /bytes are to follow/],
    ['a mark that was popped away', Buffer.concat([op.proto, op.mark, op.setItems, op.stop]), /stack is empty/],
    [
      'an integer of a million bytes',
      Buffer.concat([op.proto, Buffer.from([0x8b, 0x40, 0x42, 0x0f, 0]), Buffer.alloc(1_000_000, 1), op.stop]),
      /integer of 1000000 bytes/,
    ],
    [
      'a key without a value',
      Buffer.concat([op.proto, op.dict, op.mark, op.text('a'), op.setItems, op.stop]),
      /without a value/,
    ],
    [
      'one dictionary copied again and again',
      Buffer.concat([
        op.proto,
        op.dict,
        op.mark,
        ...Array.from({ length: 3000 }, (_, i) => Buffer.concat([op.int(i), op.no])),
        op.setItems,
        op.put(0),
        many(Buffer.concat([op.global('collections', 'OrderedDict'), tupleOf(op.get(0)), op.reduce]), 400),
        op.stop,
      ]),
      /more than 1000000 copied pairs/,
    ],
    [
      'keys that are lists within lists',
      Buffer.concat([op.proto, op.dict, nested, op.int(1), Buffer.from('s'), op.stop]),
      /no tensors/,
    ],
  ];
  for (const [name, pickle, message] of bombs) {
    const error = await errorOf(() => openPth(write(folder, 'bomb.pth', pth(pickle, {}, { deflated: true }))));
    assert.is(error.code, 'ERR_FILE_FORMAT', name);
    assert.match(error.message, message, name);
  }
});

test('archives that are made to exhaust a reader, or lie', async () => {
  const pickle = statePickle({ t: tensorOpcodes({ storage: '0', values: 6, shape: [6], strides: [1] }) });
  const entry = { name: 'a/data.pkl', bytes: pickle };
  const archives: [string, Buffer, RegExp][] = [
    ['unpacks to more than deflate can', zip([{ ...entry, deflated: true, statedSize: 0xfffffff0 }]), /deflate can't/],
    ['unpacks to another size', zip([{ ...entry, deflated: true, statedSize: pickle.length + 1 }]), /unpacks to/],
    ['unpacks to less', zip([{ ...entry, deflated: true, statedSize: pickle.length - 1 }]), /damaged|larger/],
    ['two entries of one name', zip([entry, entry]), /two entries/],
    ['an encrypted entry', zip([{ ...entry, flags: 1 }]), /encrypted|mismatch/],
    ['another checksum', zip([{ ...entry, deflated: true, crc32: 1 }]), /checksum/],
    ['a name that leads out', zip([{ ...entry, name: '../a/data.pkl' }]), /damaged or incomplete zip/],
  ];
  for (const [name, bytes, message] of archives) {
    const error = await errorOf(() => openPth(write(folder, 'archive.pth', bytes)));
    assert.is(error.code, 'ERR_FILE_FORMAT', name);
    assert.match(error.message, message, name);
  }
});

test("a flipped bit among the numbers is found by the archive's own checksum", async () => {
  const bytes = readFileSync(join(fixture, 'pretrained_minigpt4.pth'));
  const check = async (name: string) => {
    const checkpoint = await openPth(join(folder, name));
    try {
      return await hashSources(
        [{ role: 'projection', file: checkpoint.path }],
        await checkpoint.regions!(),
        undefined,
        () => {},
      );
    } finally {
      await checkpoint.close();
    }
  };
  write(folder, 'whole.pth', bytes);
  assert.match((await check('whole.pth'))[0]!, /^projection whole\.pth [0-9a-f]{64}$/);
  bytes[bytes.length >> 1]! ^= 4; // in the middle of the only large tensor
  write(folder, 'flipped.pth', bytes);
  assert.match((await errorOf(() => check('flipped.pth'))).message, /checksum of .*\/data\/0 differs/);
});

test('a file that shrinks while it is open', async () => {
  const path = write(folder, 'shrinks.pth', readFileSync(join(fixture, 'pretrained_minigpt4.pth')));
  const checkpoint = await openPth(path);
  await checkpoint.tensors.get('llama_proj.bias')!.read(); // its place is known now
  await checkpoint.tensors.get('llama_proj.weight')!.read(0, 1);
  writeFileSync(path, readFileSync(path).subarray(0, 2000));
  assert.is((await errorOf(() => checkpoint.tensors.get('llama_proj.weight')!.read())).code, 'ERR_FILE_CHANGED');
  await checkpoint.close();
});

test('damaged files end in errors of ours, or are read', async () => {
  const stored = readFileSync(join(fixture, 'pretrained_minigpt4.pth'));
  const pickle = statePickle({ t: tensorOpcodes({ storage: '0', values: 6, shape: [3, 2], strides: [1, 3] }) });
  let failures = 0;
  for (const original of [stored, pth(pickle, { 0: storage6 }, { deflated: true })]) {
    for (const bytes of damaged(original, 300)) {
      const path = write(folder, 'damaged.pth', bytes);
      try {
        const checkpoint = await openPth(path);
        try {
          for (const tensor of checkpoint.tensors.values()) await tensor.read();
        } finally {
          await checkpoint.close();
        }
      } catch (error) {
        assert.is((error as Error).name, 'MiniGptError', (error as Error).stack);
        failures++;
      }
    }
  }
  assert.ok(failures > 200, `${failures} of 600 damaged files were refused`);
});

test.run();
