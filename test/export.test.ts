// A projection taken out of one kind of file and written as another: the same numbers, and nothing lost where it fails.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon } from '../lib/addon.js';
import { exportProjection, readProjection, type ExportResult, type Projection } from '../lib/export.js';
import { openPth } from '../lib/formats/pth.js';
import { writePth } from '../lib/formats/pth-writer.js';
import { openSafetensors } from '../lib/formats/safetensors.js';
import { writeSafetensors } from '../lib/formats/safetensors-writer.js';
import { writeCheckpoint } from '../lib/train/checkpoint.js';
import { checkpointName, point } from '../lib/train/run-folder.js';
import { Random } from '../lib/random.js';
import { minigpt4 } from './command.js';
import { tinyModel, type TinyModel } from './models.js';
import { rejects } from './rejects.js';

const test = suite('export');
let tiny: TinyModel;
/** Inside tiny's folder. */
const at = (name: string): string => join(tiny.folder, name);
const bytesOf = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

/** Numbers that differ everywhere, for a model of these widths. */
function numbers(count: number): Float32Array {
  const random = new Random('export', count);
  return Float32Array.from({ length: count }, () => random.uniform() - 0.5);
}

async function trainingCheckpoint(path: string): Promise<Projection> {
  const model = await readProjection(tiny.path);
  const part = () => ({ weight: numbers(model.weight.length), bias: numbers(model.bias.length) });
  const values = part();
  await writeCheckpoint(
    path,
    { step: 3, values, firstMoment: part(), secondMoment: part() },
    { step: 3, config: {}, models: [], ranks: [{ loader: {}, prompts: [1, 2, 3, 4] }], losses: [], skipped: 0, cut: 0 },
  );
  return { ...model, ...values };
}

test.before(async () => {
  tiny = await tinyModel();
});
test.after(() => tiny.remove());

test('a training checkpoint becomes a .pth, and that a projection file, number for number', async () => {
  const trained = await trainingCheckpoint(at('latest.safetensors'));
  const told = await exportProjection({ checkpoint: at('latest.safetensors'), format: 'pth', out: at('out.pth') });
  assert.equal([told.input, told.output], [trained.input, trained.output]);
  const pth = await openPth(at('out.pth'));
  assert.equal([...pth.tensors.keys()], ['llama_proj.weight', 'llama_proj.bias']);
  assert.ok(pth.notes.includes("weights under 'model'"));
  assert.equal(pth.tensors.get('llama_proj.weight')!.shape, [trained.output, trained.input]);
  assert.equal(Buffer.from(await pth.tensors.get('llama_proj.weight')!.read()), bytesOf(trained.weight));
  assert.equal(Buffer.from(await pth.tensors.get('llama_proj.bias')!.read()), bytesOf(trained.bias));
  for (const { position, what } of await pth.regions!()) assert.is(position % 64, 0, what);
  await pth.close();

  await exportProjection({ checkpoint: at('out.pth'), format: 'gguf', out: at('out.gguf'), model: tiny.path });
  const back = await readProjection(at('out.gguf'));
  assert.equal(bytesOf(back.weight), bytesOf(trained.weight));
  assert.equal(bytesOf(back.bias), bytesOf(trained.bias));
  assert.is(back.patchesPerToken, (await readProjection(tiny.path)).patchesPerToken);
  const model = await addon.loadModel({ model: tiny.path, projection: at('out.gguf') });
  assert.is(model.info().parameters.projection, trained.input * trained.output + trained.output);
  await model.close();

  await exportProjection({ checkpoint: at('out.gguf'), format: 'safetensors', out: at('out.safetensors') });
  const file = await openSafetensors(at('out.safetensors'));
  assert.equal(Buffer.from(await file.tensors.get('llama_proj.weight')!.read()), bytesOf(trained.weight));
  await file.close();
});

test('the same numbers give the same bytes, whatever the file is called', async () => {
  await exportProjection({ checkpoint: tiny.path, format: 'pth', out: at('one.pth') });
  await exportProjection({ checkpoint: tiny.path, format: 'pth', out: at('another name.pth') });
  assert.equal(readFileSync(at('one.pth')), readFileSync(at('another name.pth')));
});

test('what is no projection, or does not fit, is refused with what was found', async () => {
  const tensor = (name: string, ...shape: number[]) => ({
    name,
    shape,
    values: numbers(shape.reduce((a, b) => a * b, 1)),
  });
  await writeSafetensors(at('other.safetensors'), [tensor('something', 2, 3)], {});
  const other = await rejects('ERR_MISSING_TENSOR', readProjection(at('other.safetensors')));
  assert.match(other.message, 'llama_proj.weight');
  await writePth(at('odd.pth'), 'model', [tensor('llama_proj.weight', 2, 3), tensor('llama_proj.bias', 3)]);
  const odd = await rejects('ERR_SHAPE', readProjection(at('odd.pth')));
  assert.match(odd.message, 'expected [2]');
  const bad = tensor('llama_proj.weight', 2, 3);
  bad.values[4] = NaN;
  await writePth(at('nan.pth'), 'model', [bad, tensor('llama_proj.bias', 2)]);
  const nan = await rejects('ERR_FILE_FORMAT', readProjection(at('nan.pth')));
  assert.match(nan.message, 'holds NaN');
  await writePth(at('small.pth'), 'model', [tensor('llama_proj.weight', 2, 3), tensor('llama_proj.bias', 2)]);
  const size = { checkpoint: at('small.pth'), format: 'gguf', out: at('never.gguf') } as const;
  assert.match((await rejects('ERR_ARGUMENT', exportProjection(size))).message, '--model');
  const misfit = await rejects('ERR_SHAPE', exportProjection({ ...size, model: tiny.path }));
  assert.match(misfit.message, 'different models');
  assert.not(readdirSync(tiny.folder).some((name) => name.startsWith('never')));
});

test('a damaged training checkpoint is not exported', async () => {
  const path = at('damaged.safetensors');
  await trainingCheckpoint(path);
  const bytes = readFileSync(path);
  bytes[bytes.length - 3]! ^= 1; // in a moment: the projection's own numbers are as they were
  writeFileSync(path, bytes);
  await rejects('ERR_FILE_FORMAT', exportProjection({ checkpoint: path, format: 'pth', out: at('damaged.pth') }));
});

test('a run is exported by its folder, its latest and its best', async () => {
  const run = mkdtempSync(join(tiny.folder, 'run-'));
  const first = await trainingCheckpoint(join(run, checkpointName(3)));
  await exportProjection({ checkpoint: tiny.path, format: 'safetensors', out: join(run, checkpointName(4)) });
  await point(run, 'latest', 4);
  await point(run, 'best', 3);
  assert.equal((await readProjection(join(run, 'best'))).weight, first.weight);
  const last = await readProjection(tiny.path);
  assert.equal((await readProjection(run)).weight, last.weight);
  assert.equal((await readProjection(join(run, 'latest'))).weight, last.weight);
});

test('the command writes every file that is asked for, and says what is missing', async () => {
  const [pth, gguf] = [at('command.pth'), at('command.gguf')];
  const { code, stdout } = await minigpt4(['export', tiny.path, '--pth', pth, '--gguf', gguf, '--json']);
  assert.is(code, 0);
  const told = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as ExportResult);
  assert.equal(
    told.map(({ path, format }) => [path, format]),
    [
      [pth, 'pth'],
      [gguf, 'gguf'],
    ],
  );
  assert.is(told[0]!.bytes, readFileSync(pth).length);
  assert.equal((await readProjection(gguf)).weight, (await readProjection(pth)).weight);
  const none = await minigpt4(['export', tiny.path]);
  assert.is(none.code, 2);
  assert.match(none.stderr, 'expected --pth, --gguf or --safetensors');
});

test('the checkpoint is not written over, and an abort leaves what was there', async () => {
  await exportProjection({ checkpoint: tiny.path, format: 'pth', out: at('kept.pth') });
  const before = readFileSync(at('kept.pth'));
  const same = await rejects(
    'ERR_ARGUMENT',
    exportProjection({ checkpoint: at('kept.pth'), format: 'pth', out: at('kept.pth') }),
  );
  assert.match(same.message, 'the checkpoint itself');
  const signal = AbortSignal.abort();
  for (const format of ['pth', 'gguf', 'safetensors'] as const)
    await rejects('ERR_ABORTED', exportProjection({ checkpoint: tiny.path, format, out: at('kept.pth'), signal }));
  assert.equal(readFileSync(at('kept.pth')), before);
});

const python = process.env['MINIGPT4_TORCH_PYTHON'];
(python ? test : test.skip)(
  python ? 'torch loads the .pth' : 'torch loads the .pth (MINIGPT4_TORCH_PYTHON names no Python with torch)',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'minigpt4-torch-'));
    const out = join(folder, 'out.pth');
    await exportProjection({ checkpoint: tiny.path, format: 'pth', out });
    const code = `
import json, sys, torch
for only in (True, False):
    top = torch.load(sys.argv[1], map_location='cpu', weights_only=only)
    model = top['model']
    assert list(top) == ['model'] and type(model).__name__ == 'OrderedDict', top
    layer = torch.nn.Linear(model['llama_proj.weight'].shape[1], model['llama_proj.weight'].shape[0])
    layer.load_state_dict({name.split('.')[1]: tensor for name, tensor in model.items()}, strict=True)
print(json.dumps([layer.weight.dtype == torch.float32, layer.weight.flatten().tolist(), layer.bias.tolist()]))`;
    const found = JSON.parse(execFileSync(python!, ['-c', code, out], { encoding: 'utf8', maxBuffer: 1 << 28 })) as [
      boolean,
      number[],
      number[],
    ];
    rmSync(folder, { recursive: true });
    const { weight, bias } = await readProjection(tiny.path);
    assert.is(found[0], true);
    assert.equal(Float32Array.from(found[1]), weight);
    assert.equal(Float32Array.from(found[2]), bias);
  },
);

test.run();
