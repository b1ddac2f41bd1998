// Checkpoints of a run: written whole or not at all, read back to the bit, refused where anything about them is wrong.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NativeTrainerState } from '../lib/addon.js';
import { makeFolders } from '../lib/formats/make-folders.js';
import { openSafetensors } from '../lib/formats/safetensors.js';
import { Random } from '../lib/random.js';
import { readCheckpoint, writeCheckpoint, type RunState } from '../lib/train/checkpoint.js';
import {
  checkpointBefore,
  checkpointName,
  findCheckpoint,
  holdRunFolder,
  jobId,
  makeRunFolder,
  point,
  pointed,
  refuseUsed,
  removeOld,
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
  bestStep: 4,
  validated: 6,
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
  const { best: _, bestStep: __, validated: ___, ...without } = state;
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
  await refused(flipped, /it is damaged: the SHA-256 of its numbers and its state/);
  await refused(replaced('\\"seed\\":42', '\\"seed\\":43'), /it is damaged: the SHA-256 of its numbers and its state/);
  await refused(replaced('minigpt4-training', 'minigpt4-traininG'), /expected a checkpoint of a training run/);
  await refused(replaced('"version":"1"', '"version":"9"'), /expected version 1 of the checkpoint format, found 9/);
  await refused(replaced('\\"step\\":7', '\\"step\\":}'), /the run's state in it is no JSON/);
  await refused(
    replaced('\\"step\\":7', '\\"stap\\":7'),
    /the run's state in it is wrong: step: expected a whole number, found none$/,
  );
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
  await rejects('ERR_ARGUMENT', refuseUsed(first));
  await refuseUsed(join(runs, '202601020304-2'));
});

test('refuses random states that no generator has, in words', async () => {
  const path = join(folder, 'random.safetensors');
  for (const [prompts, found] of [
    [[0, 0, 0, 0], '[0,0,0,0]'],
    [[1, 2, 3, 2 ** 32], '[1,2,3,4294967296]'],
    [[1, 2, 3], '[1,2,3]'],
  ] as const) {
    await writeCheckpoint(path, trainer, { ...state, ranks: [{ loader: null, prompts: [...prompts] }] });
    const { message } = await rejects('ERR_FILE_FORMAT', readCheckpoint(path));
    const expected = 'four whole numbers from 0 to 4294967295, not all 0';
    assert.is(
      message,
      `${path}: the run's state in it is wrong: ranks.0.prompts: expected ${expected}, found ${found}`,
    );
  }
});

test('folders are made as far as they are missing, and a reason ends it', async () => {
  const deep = join(folder, 'a', 'b', 'c');
  await Promise.all([makeFolders(deep), makeFolders(deep), makeFolders(join(folder, 'a', 'b', 'd'))]);
  await makeFolders(deep);
  assert.equal(readdirSync(join(folder, 'a', 'b')).sort(), ['c', 'd']);
  writeFileSync(join(folder, 'a', 'file'), '');
  for (const path of [join(folder, 'a', 'file'), join(folder, 'a', 'file', 'in')])
    assert.ok((await rejects('ERR_FILE_READ', makeFolders(path))).message.includes(`${path} cannot be made: `));
  if (process.platform === 'win32') return;
  symlinkSync(join(folder, 'nowhere'), join(folder, 'a', 'link'));
  await rejects('ERR_FILE_READ', makeFolders(join(folder, 'a', 'link', 'in')));
});

test('a system that denies a folder its parent ends it too, in every command that makes folders', () => {
  if (!existsSync('/proc/self')) return; // only Linux has such a folder
  // in a process of its own: what the system's recursive mkdir does then cannot be stopped from inside
  const lib = new URL('../lib/', import.meta.url).href;
  const words = `
    const lib = ${JSON.stringify(lib)};
    const { makeFolders } = await import(lib + 'formats/make-folders.ts');
    const { openFeatureCache } = await import(lib + 'data/feature-cache.ts');
    const { makeRunFolder } = await import(lib + 'train/run-folder.ts');
    const { AlignRecord } = await import(lib + 'data/align-record.ts');
    const { build } = await import(lib + 'data/make-shards.ts');
    const { openLog } = await import(lib + 'train/log.ts');
    const path = '/proc/foo/bar';
    const tried = [
      makeFolders(path),
      openFeatureCache({ folder: path, modelHash: '', values: 1, type: 'f16', rank: 0 }),
      makeRunFolder(path, new Date()),
      AlignRecord.open(path, {}),
      build({ list: ${JSON.stringify(join(folder, 'list.jsonl'))}, format: 'list', out: path }),
      openLog({ startStep: 0, datasets: [] }, { folder: path, terminal: false }),
    ];
    for (const { status, reason } of await Promise.allSettled(tried))
      console.log(status, reason.code, /the folder .* cannot be made: .*ENOENT/.test(reason.message) || reason.message);`;
  writeFileSync(join(folder, 'list.jsonl'), `${JSON.stringify({ path: 'x.png', caption: 'x' })}\n`);
  const told = execFileSync(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', words],
    { encoding: 'utf8', timeout: 20_000, killSignal: 'SIGKILL' },
  );
  assert.equal(told.trim().split('\n'), new Array(6).fill('rejected ERR_FILE_READ true'));
});

test("a folder is one run's; what a killed one left unfinished goes away, and nothing else", async () => {
  const own = join(folder, 'held');
  mkdirSync(own);
  const parts = [checkpointName(3), 'latest', 'best', 'config.yaml', 'answers.jsonl'].map(
    (name) => `${name}.part-77-1`,
  );
  const others = ['notes.txt.part-77-1', 'latest.part-x', 'metrics.jsonl'];
  for (const name of [...parts, ...others]) writeFileSync(join(own, name), '');
  // a number that no process has
  writeFileSync(join(own, 'run.lock'), JSON.stringify({ host: hostname(), process: 2 ** 30 }));
  const release = await holdRunFolder(own);
  assert.equal(readdirSync(own).sort(), [...others, 'run.lock'].sort());
  writeFileSync(join(own, parts[0]!), '');
  assert.match((await rejects('ERR_ARGUMENT', holdRunFolder(own))).message, /no other run works in, found one of this/);
  assert.ok(existsSync(join(own, parts[0]!)), 'it may be at work on it');
  await release();
  writeFileSync(join(own, 'run.lock'), JSON.stringify({ host: hostname(), process: process.ppid }));
  const { message } = await rejects('ERR_ARGUMENT', holdRunFolder(own));
  assert.ok(message.includes(`found one of process ${process.ppid}`), message);
  rmSync(join(own, 'run.lock'));
  await (
    await holdRunFolder(own)
  )();
  assert.equal(readdirSync(own).sort(), [...others].sort());
});

test('where latest names a checkpoint that is gone, the last one is taken and told', async () => {
  const runs = join(folder, 'gone');
  const own = join(runs, 'one');
  mkdirSync(own, { recursive: true });
  for (const step of [10, 20]) await writeCheckpoint(join(own, checkpointName(step)), trainer, state);
  await point(own, 'latest', 30);
  for (const path of [own, runs, join(own, 'latest')]) {
    const told: string[] = [];
    assert.is(await findCheckpoint(path, (notice) => told.push(notice)), join(own, checkpointName(20)));
    assert.is(told.length, 1);
    assert.match(told[0]!, /latest names checkpoint-000030\.safetensors, which is not there: checkpoint-000020/);
    // who cannot be told is not given another one
    const { message } = await rejects('ERR_FILE_NOT_FOUND', findCheckpoint(path));
    assert.ok(message.includes(join(own, checkpointName(20))), message);
  }
  assert.is(await checkpointBefore(join(own, checkpointName(20))), join(own, checkpointName(10)));
  assert.is(await checkpointBefore(join(own, checkpointName(10))), undefined);
  for (const step of [10, 20]) rmSync(join(own, checkpointName(step)));
  await rejects(
    'ERR_FILE_NOT_FOUND',
    findCheckpoint(own, () => {}),
  );
});

test.run();
