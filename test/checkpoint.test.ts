// Checkpoints of a run: written whole or not at all, read back to the bit, refused where anything about them is wrong.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NativeTrainerState } from '../lib/addon.js';
import { openSafetensors } from '../lib/formats/safetensors.js';
import { Random } from '../lib/random.js';
import { readCheckpoint, writeCheckpoint, type RunState } from '../lib/train/checkpoint.js';
import {
  checkpointName,
  findCheckpoint,
  jobId,
  makeRunFolder,
  point,
  pointed,
  removeOld,
  takeRunFolder,
} from '../lib/train/run-folder.js';
import { fixture } from './models.js';
import { rejects } from './rejects.js';

const test = suite('checkpoint');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-checkpoint-test-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const random = new Random('checkpoint');
const numbers = (count: number) => Float32Array.from({ length: count }, () => random.uniform() - 0.5);
const values = () => ({ weight: numbers(12 * 8), bias: numbers(12) });
const trainer: NativeTrainerState = { step: 7, values: values(), firstMoment: values(), secondMoment: values() };
const state: RunState = {
  step: 7,
  config: { run: { seed: 42 }, model: { end_sym: '\n' } },
  models: [{ role: 'model', file: 'a.gguf', sha256: 'ab' }],
  ranks: [
    { loader: { shard: 3, buffer: ['x', 'y'] }, prompts: [1, 2, 3, 4_000_000_000] },
    { loader: null, prompts: [5, 6, 7, 8] },
  ],
  losses: [3.5, 2.25],
  best: 1.5,
  skipped: 1,
  cut: 2,
};

test('comes back to the bit, and reads as the published checkpoints do', async () => {
  const path = join(folder, 'whole.safetensors');
  await writeCheckpoint(path, trainer, state);
  const read = await readCheckpoint(path);
  assert.equal(read, { path, state, trainer, input: 8, output: 12 });
  const file = await openSafetensors(path);
  assert.equal(file.tensors.get('llama_proj.weight')!.shape, [12, 8]);
  assert.equal(file.tensors.get('llama_proj.bias')!.shape, [12]);
  await file.close();
  const { best: _, ...without } = state;
  await writeCheckpoint(path, trainer, without);
  assert.equal((await readCheckpoint(path)).state, without);
});

test('says what is wrong with a damaged one', async () => {
  const path = join(folder, 'damaged.safetensors');
  await writeCheckpoint(path, trainer, state);
  const whole = readFileSync(path);
  const refused = async (bytes: Buffer, message: RegExp) => {
    writeFileSync(path, bytes);
    assert.match((await rejects('ERR_FILE_FORMAT', readCheckpoint(path))).message, message);
  };
  const replaced = (from: string, to: string) => {
    assert.is(from.length, to.length);
    return Buffer.from(whole.toString('latin1').replace(from, to), 'latin1');
  };
  await refused(whole.subarray(0, whole.length - 4), /is the file incomplete\?/);
  const flipped = Buffer.from(whole);
  flipped[flipped.length - 5]! ^= 1;
  await refused(flipped, /its numbers are damaged: their SHA-256/);
  await refused(replaced('minigpt4-training', 'minigpt4-traininG'), /expected a checkpoint of a training run/);
  await refused(replaced('"version":"1"', '"version":"9"'), /expected version 1 of the checkpoint format, found 9/);
  await refused(replaced('\\"step\\":7', '\\"step\\":}'), /the run's state in it is no JSON/);
  await refused(replaced('\\"step\\":7', '\\"stap\\":7'), /the run's state in it is wrong at step/);
  await refused(
    replaced('first_moment.bias', 'first_moment.bia_'),
    /expected first_moment\.bias as f32 \[12\], found none/,
  );
  // a projection alone is no checkpoint to go on from
  await rejects('ERR_FILE_FORMAT', readCheckpoint(fixture('expected.safetensors')));
  await rejects('ERR_FILE_FORMAT', readCheckpoint(fixture('pretrained_minigpt4.pth')));
  await rejects('ERR_FILE_NOT_FOUND', readCheckpoint(join(folder, 'missing.safetensors')));
});

test('a disk that fills leaves the old one, and nothing else', async () => {
  const own = join(folder, 'full');
  mkdirSync(own);
  const path = join(own, checkpointName(7));
  await writeCheckpoint(path, trainer, state);
  const before = readFileSync(path);
  // files of at most 2 KiB: the system refuses to write on in the middle, as it does on a full disk
  const words = `
    import { readCheckpoint, writeCheckpoint } from ${JSON.stringify(new URL('../lib/train/checkpoint.ts', import.meta.url).href)};
    const { trainer, state } = await readCheckpoint(${JSON.stringify(path)});
    await writeCheckpoint(${JSON.stringify(path)}, trainer, { ...state, skipped: 99 }).then(
      () => console.log('written'),
      ({ code, message }) => console.log(code, message),
    );`;
  const node = [process.execPath, '--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', words];
  const told = execFileSync('bash', ['-c', 'ulimit -f 2; exec "$@"', 'bash', ...node], {
    encoding: 'utf8',
    env: { ...process.env, TSX_DISABLE_CACHE: '1' },
  });
  assert.match(told, /^ERR_FILE_READ .*checkpoint-000007\.safetensors cannot be written: .*(EFBIG|too large)/);
  assert.equal(readFileSync(path), before);
  assert.equal(readdirSync(own), [checkpointName(7)]);
});

test('a folder keeps the last ones and the best; a path means what a user would think', async () => {
  const runs = join(folder, 'runs');
  const first = await makeRunFolder(runs, new Date(2026, 0, 2, 3, 4));
  assert.is(first, join(runs, '202601020304'));
  assert.is(await makeRunFolder(runs, new Date(2026, 0, 2, 3, 4)), `${first}-2`);
  assert.is(jobId(new Date(2026, 11, 31, 23, 59)), '202612312359');
  await rejects('ERR_FILE_NOT_FOUND', findCheckpoint(runs));
  for (const step of [10, 20, 30, 40, 50]) await writeCheckpoint(join(first, checkpointName(step)), trainer, state);
  assert.is(await pointed(first, 'best'), undefined);
  assert.is(await findCheckpoint(first), join(first, checkpointName(50)), 'the last, where nothing points');
  await point(first, 'best', 10);
  await point(first, 'latest', 40);
  await removeOld(first, 2, 40);
  const left = readdirSync(first).filter((name) => name.startsWith('checkpoint'));
  // 50 is of a run that went on before
  assert.equal(left.sort(), [10, 30, 40, 50].map(checkpointName));
  assert.is(await findCheckpoint(first), join(first, checkpointName(40)));
  assert.is(await findCheckpoint(runs), join(first, checkpointName(40)), 'of the newest run');
  assert.is(await findCheckpoint(join(first, 'best')), join(first, checkpointName(10)));
  assert.is(await findCheckpoint(join(first, checkpointName(30))), join(first, checkpointName(30)));
  writeFileSync(join(first, 'latest'), '../../etc/passwd\n');
  await rejects('ERR_FILE_FORMAT', findCheckpoint(first));
  await rejects('ERR_ARGUMENT', takeRunFolder(first));
  assert.is(await takeRunFolder(join(runs, 'new', 'one')), join(runs, 'new', 'one'));
  cpSync(join(first, 'best'), join(runs, 'file'));
  await rejects('ERR_FILE_READ', takeRunFolder(join(runs, 'file', 'in')));
});

test.run();
