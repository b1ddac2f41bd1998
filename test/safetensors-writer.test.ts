// Files of float32 tensors: what is written is what is read, and what goes wrong leaves what was there.
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openSafetensors } from '../lib/formats/safetensors.js';
import { writeSafetensors } from '../lib/formats/safetensors-writer.js';
import { rejects } from './rejects.js';

const test = suite('safetensors writer');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-safetensors-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const small = { name: 'a', shape: [2], values: Float32Array.of(1, 2) };

test('what is written is read again, whatever the numbers and names', async () => {
  const path = join(folder, 'round.safetensors');
  const values = Float32Array.of(1.5, -0, Infinity, 1e-45, NaN, 3.4e38);
  // a view into a larger array: only its own numbers belong into the file
  const view = new Float32Array(10).fill(7).subarray(3, 5);
  await writeSafetensors(
    path,
    [
      { name: 'weight', shape: [2, 3], values },
      { name: 'ünïcode "quoted"', shape: [2], values: view },
      { name: 'empty', shape: [0, 4], values: new Float32Array(0) },
      { name: 'scalar', shape: [], values: Float32Array.of(9) },
    ],
    { step: '17', note: 'ends with a newline\n' },
  );
  const length = Number(readFileSync(path).readBigUInt64LE(0));
  assert.is(length % 8, 0);
  const file = await openSafetensors(path);
  assert.equal([...file.tensors.keys()], ['weight', 'ünïcode "quoted"', 'empty', 'scalar']);
  const read = async (name: string) => Buffer.from(await file.tensors.get(name)!.read());
  assert.equal(await read('weight'), Buffer.from(values.buffer));
  assert.equal(await read('ünïcode "quoted"'), Buffer.from(Float32Array.of(7, 7).buffer));
  assert.is((await read('empty')).length, 0);
  assert.equal(file.tensors.get('scalar')!.shape, []);
  assert.ok(file.notes.includes('step: 17'));
  await file.close();
});

test('the same content gives the same bytes, in the place of what was there', async () => {
  const [one, two] = [join(folder, 'one'), join(folder, 'two')];
  writeFileSync(two, 'something else that is longer than the file to come: '.repeat(20));
  await writeSafetensors(one, [small], { b: '1', a: '2' });
  await writeSafetensors(two, [small], { b: '1', a: '2' });
  assert.equal(readFileSync(one), readFileSync(two));
  assert.equal(
    readdirSync(folder).filter((name) => name.includes('.part')),
    [],
  );
});

test('content that does not fit together is refused', async () => {
  const path = join(folder, 'refused');
  const shape = await rejects('ERR_SHAPE', writeSafetensors(path, [{ ...small, shape: [3] }], {}));
  assert.match(shape.message, 'a of shape [3] has 3 values, found 2');
  await rejects('ERR_ARGUMENT', writeSafetensors(path, [small, small], {}));
  await rejects('ERR_ARGUMENT', writeSafetensors(path, [{ ...small, name: '__metadata__' }], {}));
  assert.not(readdirSync(folder).includes('refused'));
});

test('a folder in its place, and no folder, are told and nothing is left', async () => {
  const place = mkdtempSync(join(folder, 'place-'));
  mkdirSync(join(place, 'taken'));
  const taken = await rejects('ERR_FILE_NOT_FOUND', writeSafetensors(join(place, 'taken'), [small], {}));
  assert.match(taken.message, `${join(place, 'taken')} is a directory`);
  assert.equal(readdirSync(place), ['taken']);
  const gone = await rejects('ERR_FILE_NOT_FOUND', writeSafetensors(join(place, 'gone', 'file'), [small], {}));
  assert.match(gone.message, 'there is no directory');
});

test('an abort leaves the old file', async () => {
  const path = join(folder, 'aborted');
  writeFileSync(path, 'old');
  await rejects('ERR_ABORTED', writeSafetensors(path, [small], {}, AbortSignal.abort()));
  assert.is(readFileSync(path, 'utf8'), 'old');
  assert.equal(
    readdirSync(folder).filter((name) => name.startsWith('aborted.')),
    [],
  );
});

test('a file system that takes no more leaves the old file and no part', () => {
  if (process.platform === 'win32') return;
  const place = mkdtempSync(join(folder, 'full-'));
  const path = join(place, 'latest.safetensors');
  writeFileSync(path, 'old');
  // the limit on a file's size fails in the middle of writing, as a full disk does (node ignores the signal that comes with it)
  const code = `
    const { writeSafetensors } = await import(${JSON.stringify(new URL('../lib/formats/safetensors-writer.ts', import.meta.url).href)});
    const tensor = { name: 'w', shape: [1 << 20], values: new Float32Array(1 << 20) };
    try { await writeSafetensors(${JSON.stringify(path)}, [tensor], {}); console.log('written'); }
    catch (error) { console.log(error.code + ' ' + error.message); }`;
  const { stdout, stderr } = spawnSync(
    'sh',
    [
      '-c',
      'ulimit -f 64 && exec "$@"',
      'sh',
      process.execPath,
      '--import',
      import.meta.resolve('tsx'),
      '--input-type=module',
      '--eval',
      code,
    ],
    // what the loader keeps of its own must not fail at the limit
    { encoding: 'utf8', env: { ...process.env, TSX_DISABLE_CACHE: '1' } },
  );
  assert.match(stdout, `ERR_FILE_READ ${path} cannot be written: EFBIG`, stderr);
  assert.is(readFileSync(path, 'utf8'), 'old');
  assert.equal(readdirSync(place), ['latest.safetensors']);
});

test.run();
