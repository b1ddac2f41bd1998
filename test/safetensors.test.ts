// safetensors files and Hugging Face folders: values, shards, and damaged or hostile files.
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openCheckpoint } from '../lib/formats/checkpoint.js';
import { toFloat32 } from '../lib/formats/numbers.js';
import { openSafetensors } from '../lib/formats/safetensors.js';
import { damaged, errorOf, floats, safetensors, temporaryFolder, write } from './checkpoint-builder.js';
import { root } from './checkout.js';

const test = suite('safetensors');
const folder = temporaryFolder('safetensors');
const fixture = join(root, 'test/fixtures/tiny-llama2');
const two = {
  a: { dtype: 'f32', shape: [2, 3], bytes: floats(0, 1, 2, 3, 4, 5) },
  b: { dtype: 'u8', shape: [4], bytes: Buffer.from([9, 8, 7, 6]) },
};

test('names, types, shapes and values', async () => {
  const file = await openSafetensors(
    write(
      folder,
      'two.safetensors',
      safetensors(two, (header) => ({ __metadata__: { format: 'pt' }, ...header })),
    ),
  );
  assert.equal([...file.tensors.keys()], ['a', 'b']);
  assert.equal(file.notes, ['format: pt']);
  const a = file.tensors.get('a')!;
  assert.equal([...a.shape], [2, 3]);
  assert.equal([...toFloat32('f32', await a.read())], [0, 1, 2, 3, 4, 5]);
  assert.equal([...toFloat32('f32', await a.read(2, 2))], [2, 3]);
  assert.equal([...(await file.tensors.get('b')!.read(1, 2))], [8, 7]);
  assert.is((await errorOf(() => a.read(5, 2))).code, 'ERR_ARGUMENT');
  await file.close();
});

test("a tensor's bytes are its own: copies of them begin where they do", async () => {
  const file = await openSafetensors(write(folder, 'own.safetensors', safetensors(two)));
  const bytes = await file.tensors.get('a')!.read();
  assert.is(bytes.slice().buffer.byteLength, 24);
  await file.close();
});

test('the expected values of a fixture', async () => {
  const file = await openSafetensors(join(fixture, 'expected.safetensors'));
  const pixels = file.tensors.get('pixels')!;
  assert.equal([...pixels.shape], [3, 3, 56, 56]);
  const values = toFloat32(pixels.dtype, await pixels.read());
  // CLIP's normalisation of 0..255 lies within these bounds.
  assert.ok(values.every((value) => value > -1.8 && value < 2.2) && values.some((value) => value > 0));
  await file.close();
});

test('headers that lie', async () => {
  const change = (entry: object) =>
    safetensors(two, (header) => ({ ...header, b: { ...(header['b'] as object), ...entry } }));
  const cases: [string, Uint8Array, string, RegExp][] = [
    ['an unknown type', change({ dtype: 'Q7' }), 'ERR_UNSUPPORTED', /'Q7'; known are F64/],
    [
      'a type named as a property of every object',
      change({ dtype: 'constructor' }),
      'ERR_UNSUPPORTED',
      /'constructor'/,
    ],
    ['no type', change({ dtype: 7 }), 'ERR_FILE_FORMAT', /no dtype/],
    ['a negative size', change({ shape: [-4] }), 'ERR_FILE_FORMAT', /whole numbers/],
    ['a size beyond exact numbers', change({ shape: [2 ** 60] }), 'ERR_FILE_FORMAT', /whole numbers/],
    ['a product beyond exact numbers', change({ shape: [2 ** 30, 2 ** 30] }), 'ERR_FILE_FORMAT', /no file can hold/],
    ['more bytes than the shape has', change({ shape: [3] }), 'ERR_FILE_FORMAT', /has 4 bytes; expected 3/],
    ['beyond the end', change({ data_offsets: [26, 30] }), 'ERR_FILE_FORMAT', /incomplete/],
    ['backwards', change({ data_offsets: [28, 24] }), 'ERR_FILE_FORMAT', /incomplete/],
    ['overlapping', change({ data_offsets: [20, 24] }), 'ERR_FILE_FORMAT', /a and b overlap/],
    ['one offset', change({ data_offsets: [24] }), 'ERR_FILE_FORMAT', /two whole numbers/],
    ['an entry that is a number', safetensors(two, () => ({ a: 1 })), 'ERR_FILE_FORMAT', /not an object/],
    ['a list', safetensors(two, () => []), 'ERR_FILE_FORMAT', /not an object/],
    ['no tensors', safetensors({}), 'ERR_FILE_FORMAT', /no tensors|too few/],
    [
      'nested deeply',
      Buffer.concat([Buffer.from([0, 0, 16, 0, 0, 0, 0, 0]), Buffer.alloc(1 << 20, '[')]),
      'ERR_FILE_FORMAT',
      /nested/,
    ],
    [
      'no JSON',
      Buffer.concat([Buffer.from([12, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{"a": nonsense')]),
      'ERR_FILE_FORMAT',
      /no JSON/,
    ],
    [
      'a header longer than the file',
      Buffer.concat([Buffer.from([0, 0, 0, 1, 0, 0, 0, 0]), Buffer.from('{"a":1}    ')]),
      'ERR_FILE_FORMAT',
      /is no safetensors file, .*header is to have/,
    ],
  ];
  for (const [name, bytes, code, message] of cases) {
    const error = await errorOf(() => openSafetensors(write(folder, 'lies.safetensors', bytes)));
    assert.is(error.code, code, name);
    assert.match(error.message, message, name);
  }
});

test('damaged files end in errors of ours, or are read', async () => {
  let failures = 0;
  for (const bytes of damaged(safetensors(two), 400)) {
    try {
      const file = await openSafetensors(write(folder, 'damaged.safetensors', bytes));
      try {
        for (const tensor of file.tensors.values()) await tensor.read();
      } finally {
        await file.close();
      }
    } catch (error) {
      assert.is((error as Error).name, 'MiniGptError', (error as Error).stack);
      failures++;
    }
  }
  assert.ok(failures > 200, `${failures} of 400 damaged files were refused`);
});

test('a folder of shards', async () => {
  const checkpoint = await openCheckpoint(join(fixture, 'llama2'));
  assert.is(checkpoint.format, 'hugging-face');
  assert.is(checkpoint.tensors.size, 21);
  assert.is(checkpoint.files.length, 2);
  const head = checkpoint.tensors.get('lm_head.weight')!;
  assert.equal([...head.shape], [512, 256]);
  assert.is((await head.read()).length, 512 * 256 * 2);
  await checkpoint.close();
});

test('folders that are incomplete or lead out of themselves', async () => {
  const source = join(fixture, 'llama2');
  const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
  const index = JSON.parse(readFileSync(join(source, 'model.safetensors.index.json'), 'utf8')) as {
    weight_map: Record<string, string>;
  };
  const make = (name: string, map: unknown, copied: string[]) => {
    const path = join(folder, name);
    mkdirSync(path);
    for (const shard of copied) copyFileSync(join(source, shard), join(path, shard));
    write(path, 'model.safetensors.index.json', typeof map === 'string' ? map : JSON.stringify(map));
    return path;
  };
  const cases: [string, string, string, RegExp][] = [
    [
      'a missing shard',
      make('missing', index, shards.slice(0, 1)),
      'ERR_FILE_NOT_FOUND',
      /model-00002-of-00002\.safetensors: no such file/,
    ],
    [
      'a tensor elsewhere',
      make('elsewhere', { weight_map: { ...index.weight_map, 'lm_head.weight': shards[1]! } }, shards),
      'ERR_MISSING_TENSOR',
      /lacks the tensor lm_head\.weight/,
    ],
    [
      'a path',
      make('path', { weight_map: { a: '../missing/x.safetensors' } }, []),
      'ERR_FILE_FORMAT',
      /name of a file in the same folder/,
    ],
    ['the folder above', make('above', { weight_map: { a: '..' } }, []), 'ERR_FILE_FORMAT', /name of a file/],
    ['a number', make('number', { weight_map: { a: 1 } }, []), 'ERR_FILE_FORMAT', /name of a file/],
    ['no map', make('no-map', {}, []), 'ERR_FILE_FORMAT', /no weight_map/],
    ['an empty map', make('empty-map', { weight_map: {} }, []), 'ERR_FILE_FORMAT', /empty/],
    ['no JSON', make('no-json', '{', []), 'ERR_FILE_FORMAT', /no JSON/],
    ['no weights', join(root, 'lib'), 'ERR_FILE_NOT_FOUND', /without model weights/],
  ];
  for (const [name, path, code, message] of cases) {
    const error = await errorOf(() => openCheckpoint(path));
    assert.is(error.code, code, name);
    assert.match(error.message, message, name);
  }
});

test.run();
