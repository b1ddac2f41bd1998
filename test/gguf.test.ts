// The head of GGUF files as the converter and `inspect` read it (the native reader has tests of its own).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openGguf } from '../lib/formats/gguf.js';
import { damaged, errorOf, temporaryFolder, write } from './checkpoint-builder.js';
import { root } from './checkout.js';

const test = suite('gguf');
const folder = temporaryFolder('gguf');
const fixture = join(root, 'test/fixtures/tiny-gqa/vicuna-f16.gguf');

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

interface Head {
  version?: number;
  tensorCount?: number | bigint;
  keyCount?: number | bigint;
  keys?: Buffer[];
  tensors?: Buffer[];
  data?: number;
}

const key = (name: string, type: number, value: Buffer) => Buffer.concat([text(name), u32(type), value]);
const tensor = (name: string, sizes: (number | bigint)[], type: number, offset: number | bigint) =>
  Buffer.concat([text(name), u32(sizes.length), ...sizes.map(u64), u32(type), u64(offset)]);

function gguf({
  version = 3,
  keys = [],
  tensors = [],
  data = 64,
  tensorCount = tensors.length,
  keyCount = keys.length,
}: Head): Buffer {
  const head = Buffer.concat([Buffer.from('GGUF'), u32(version), u64(tensorCount), u64(keyCount), ...keys, ...tensors]);
  return Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32), Buffer.alloc(data, 1)]);
}

test('keys and tensors as another writer wrote them', async () => {
  const file = await openGguf(fixture);
  assert.is(file.version, 3);
  const value = (name: string) => file.keys.find((entry) => entry.key === name)?.value;
  assert.is(value('general.architecture'), 'llama');
  assert.is(value('llama.attention.head_count_kv'), 2);
  assert.is(value('llama.rope.freq_base'), 500000);
  assert.is(value('tokenizer.ggml.add_bos_token'), true);
  assert.is((value('tokenizer.ggml.tokens') as string[])[3], '<0x00>');
  const k = file.tensors.find(({ name }) => name === 'blk.0.attn_k.weight')!;
  assert.equal([...k.shape], [64, 128]);
  assert.is(k.type, 'f16');
  assert.is((await k.part.read(k.position, k.bytes)).length, 64 * 128 * 2);
  await file.close();
});

test('numbers keep their width, large ones as bigint', async () => {
  const keys = [
    key('small', 10, u64(7)),
    key('large', 10, u64(2n ** 60n + 1n)),
    key('negative', 11, u64(2n ** 64n - 5n)),
    key('byte', 1, Buffer.from([255])),
  ];
  const file = await openGguf(write(folder, 'numbers.gguf', gguf({ keys })));
  assert.equal(
    file.keys.map(({ type, value }) => [type, value]),
    [
      ['u64', 7],
      ['u64', 2n ** 60n + 1n],
      ['i64', -5],
      ['i8', -1],
    ],
  );
  await file.close();
});

test('split files are one', async () => {
  const part = (n: number) =>
    gguf({
      keys: [key('general.architecture', 8, text('llama')), key('split.count', 2, Buffer.from([2, 0]))],
      tensors: [tensor(`t${n}`, [4], 0, 0)],
    });
  const first = write(folder, 'm-00001-of-00002.gguf', part(1));
  const second = write(folder, 'm-00002-of-00002.gguf', part(2));
  const file = await openGguf(first);
  assert.equal(
    file.tensors.map(({ name }) => name),
    ['t1', 't2'],
  );
  assert.equal(
    file.keys.map((entry) => entry.key),
    ['general.architecture'],
  );
  await file.close();
  assert.is((await errorOf(() => openGguf(second))).code, 'ERR_ARGUMENT');
  const lonely = write(folder, 'l-00001-of-00002.gguf', part(1));
  assert.match((await errorOf(() => openGguf(lonely))).message, /l-00002-of-00002\.gguf: no such file/);
});

test('heads that lie', async () => {
  const cases: [string, Buffer, string, RegExp][] = [
    ['another beginning', Buffer.from('GGML....................'), 'ERR_FILE_FORMAT', /expected 'GGUF'/],
    ['version 1', gguf({ version: 1 }), 'ERR_UNSUPPORTED', /version 1/],
    ['big-endian', gguf({ version: 0x03000000 }), 'ERR_UNSUPPORTED', /big-endian/],
    ['too many tensors', gguf({ tensorCount: 1 << 30 }), 'ERR_FILE_FORMAT', /tensors don't fit/],
    ['more than can be counted', gguf({ keyCount: 2n ** 63n }), 'ERR_FILE_FORMAT', /number of keys/],
    [
      'a long string',
      gguf({ keys: [Buffer.concat([u64(2n ** 40n), Buffer.from('a')])] }),
      'ERR_FILE_FORMAT',
      /string is to have/,
    ],
    [
      'a long array',
      gguf({ keys: [key('a', 9, Buffer.concat([u32(0), u64(2n ** 40n)]))] }),
      'ERR_FILE_FORMAT',
      /elements of a don't fit/,
    ],
    [
      'an array of arrays',
      gguf({ keys: [key('a', 9, Buffer.concat([u32(9), u64(1)]))] }),
      'ERR_FILE_FORMAT',
      /array of arrays/,
    ],
    ['an unknown key type', gguf({ keys: [key('a', 13, u64(0))] }), 'ERR_FILE_FORMAT', /type 13/],
    ['half a truth', gguf({ keys: [key('a', 7, Buffer.from([2]))] }), 'ERR_FILE_FORMAT', /truth value/],
    ['a key twice', gguf({ keys: [key('a', 4, u32(1)), key('a', 4, u32(1))] }), 'ERR_FILE_FORMAT', /twice/],
    ['an alignment of 3', gguf({ keys: [key('general.alignment', 4, u32(3))] }), 'ERR_FILE_FORMAT', /power of two/],
    ['no dimensions', gguf({ tensors: [tensor('t', [], 0, 0)] }), 'ERR_FILE_FORMAT', /0 dimensions/],
    ['an unknown type', gguf({ tensors: [tensor('t', [4], 99, 0)] }), 'ERR_UNSUPPORTED', /type 99/],
    ['half a block', gguf({ tensors: [tensor('t', [40], 2, 0)] }), 'ERR_FILE_FORMAT', /multiple of 32/],
    ['beyond the end', gguf({ tensors: [tensor('t', [400], 0, 0)] }), 'ERR_FILE_FORMAT', /incomplete/],
    [
      'a product beyond exact numbers',
      gguf({ tensors: [tensor('t', [2n ** 40n, 2n ** 40n], 0, 0)] }),
      'ERR_FILE_FORMAT',
      /no file can hold/,
    ],
    ['an odd place', gguf({ tensors: [tensor('t', [1], 0, 4)] }), 'ERR_FILE_FORMAT', /multiple of 32/],
    [
      'overlapping',
      gguf({ tensors: [tensor('t', [16], 0, 0), tensor('u', [4], 0, 32)] }),
      'ERR_FILE_FORMAT',
      /t and u overlap/,
    ],
    [
      'two of one name',
      gguf({ tensors: [tensor('t', [4], 0, 0), tensor('t', [4], 0, 32)] }),
      'ERR_FILE_FORMAT',
      /same name/,
    ],
    [
      'an early end',
      gguf({ keys: [key('a', 8, text('a'))] }).subarray(0, 30),
      'ERR_FILE_FORMAT',
      /don't fit|ends within/,
    ],
  ];
  for (const [name, bytes, code, message] of cases) {
    const error = await errorOf(() => openGguf(write(folder, 'lies.gguf', bytes)));
    assert.is(error.code, code, `${name}: ${error.message}`);
    assert.match(error.message, message, name);
  }
});

test('damaged files end in errors of ours, or are read', async () => {
  let failures = 0;
  for (const bytes of damaged(readFileSync(fixture), 200)) {
    try {
      await (await openGguf(write(folder, 'damaged.gguf', bytes))).close();
    } catch (error) {
      assert.is((error as Error).name, 'MiniGptError', (error as Error).stack);
      failures++;
    }
  }
  assert.ok(failures > 50, `${failures} of 200 damaged files were refused`);
});

test.run();
