// What the converter does to files besides reading checkpoints: nothing of its sources is written over, changed unseen, or misnamed.
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { convert } from '../lib/convert.js';
import { openCheckpoint } from '../lib/formats/checkpoint.js';
import { errorOf, safetensors, temporaryFolder, write, type StoredTensor } from './checkpoint-builder.js';
import { root } from './checkout.js';

const test = suite('convert-files');
const folder = temporaryFolder('convert-files');
const fixtures = join(root, 'test/fixtures');
const llama2 = (name: string) => join(fixtures, 'tiny-llama2', name);
const out = (name: string) => join(folder, name);

async function tensorsOf(path: string): Promise<Record<string, StoredTensor>> {
  const checkpoint = await openCheckpoint(path);
  const tensors: Record<string, StoredTensor> = {};
  for (const [name, tensor] of checkpoint.tensors)
    tensors[name] = { dtype: tensor.dtype, shape: tensor.shape, bytes: await tensor.read() };
  await checkpoint.close();
  return tensors;
}

/** Both fixtures' inputs in a folder of their own. */
function copied(name: string) {
  const path = out(name);
  cpSync(join(fixtures, 'tiny-gqa'), path, { recursive: true });
  cpSync(llama2('llama2'), join(path, 'llama2'), { recursive: true });
  const inside = (file: string) => join(path, file);
  return { path, inside };
}

test('nothing that is read is written over, by whatever path', async () => {
  const { path, inside } = copied('precious');
  const link = out('precious-link');
  symlinkSync(path, link);
  const inputs = {
    vit: inside('eva_vit_g.pth'),
    qformer: inside('blip2_pretrained_flant5xxl.pth'),
    projection: inside('pretrained_minigpt4.pth'),
    config: inside('config.json'),
    llm: inside('vicuna-bin'),
  };
  const read = [
    'eva_vit_g.pth',
    'blip2_pretrained_flant5xxl.pth',
    'pretrained_minigpt4.pth',
    'config.json',
    ...readdirSync(inputs.llm).map((file) => join('vicuna-bin', file)),
  ];
  for (const name of ['config.json', 'tokenizer.model', 'pytorch_model.bin.index.json'])
    assert.ok(read.includes(join('vicuna-bin', name)), `the fixture has ${name}`);
  for (const file of read) {
    if (basename(file) === 'generation_config.json' || basename(file) === 'special_tokens_map.json') continue; // not read
    const before = readFileSync(inside(file));
    symlinkSync(inside(file), out('precious.gguf'));
    for (const target of [inside(file), join(link, file), join(path, 'vicuna-bin', '..', file), out('precious.gguf')]) {
      const error = await errorOf(() => convert({ ...inputs, out: target }));
      assert.is(error.code, 'ERR_ARGUMENT', `${target}: ${error.message}`);
      assert.match(error.message, /is one of the sources/);
      assert.ok(readFileSync(inside(file)).equals(before), target);
    }
    unlinkSync(out('precious.gguf'));
  }
  const gguf = inside('vicuna-f16.gguf');
  assert.match(
    (await errorOf(() => convert({ only: 'llm', llm: gguf, out: join(link, 'vicuna-f16.gguf') }))).message,
    /is one of the sources/,
  );
});

test('what is no regular file is not replaced, and a symbolic link stays one', async () => {
  const llm = { only: 'llm', llm: llama2('llama2') } as const;
  const fifo = out('fifo');
  execFileSync('mkfifo', [fifo]);
  // only what lies in the test's own folder: whoever runs this as root must not lose a device to a defect
  const error = await errorOf(() => convert({ ...llm, out: fifo }));
  assert.is(error.code, 'ERR_ARGUMENT', error.message);
  assert.match(error.message, /is no regular file/);
  assert.ok(lstatSync(fifo).isFIFO());
  mkdirSync(out('elsewhere'));
  const link = out('link.gguf');
  symlinkSync(join('elsewhere', 'real.gguf'), link); // to a file that is not there yet
  for (let i = 0; i < 2; i++) {
    assert.ok((await convert({ ...llm, out: link })).bytes > 1000);
    assert.ok(lstatSync(link).isSymbolicLink());
    assert.ok(lstatSync(out('elsewhere/real.gguf')).isFile());
  }
  symlinkSync(out('round'), out('round'));
  assert.match((await errorOf(() => convert({ ...llm, out: out('round') }))).message, /leads to no end/);
});

test('a source that is changed while it is read leaves no file', async () => {
  const changes: [string, (path: string) => void][] = [
    ['overwritten', (path) => writeFileSync(path, readFileSync(path), { flag: 'r+' })],
    ['longer', (path) => appendFileSync(path, 'x')],
    ['removed', (path) => unlinkSync(path)],
    [
      'replaced',
      (path) => {
        cpSync(path, `${path}.new`);
        renameSync(`${path}.new`, path);
      },
    ],
  ];
  const { path, inside } = copied('changing');
  for (const file of [
    'vicuna-f16.gguf',
    'vicuna-bin/pytorch_model-00001-of-00002.bin',
    'llama2/model-00001-of-00002.safetensors',
  ]) {
    for (const [how, change] of changes) {
      const before = readFileSync(inside(file));
      utimesSync(inside(file), 1e9, 1e9); // long ago: clocks of file systems tick slowly
      let changed = false;
      const error = await errorOf(() =>
        convert({
          only: 'llm',
          llm: file.endsWith('.gguf') ? inside(file) : join(inside(file), '..'),
          out: out('changed.gguf'),
          onProgress: ({ stage }) => {
            if (stage === 'write' && !changed) change(inside(file));
            changed ||= stage === 'write';
          },
        }),
      );
      assert.is(error.code, 'ERR_FILE_CHANGED', `${file} ${how}: ${error.message}`);
      assert.ok(error.message.includes(basename(file)), error.message);
      assert.not(existsSync(out('changed.gguf')), `${file} ${how}`);
      writeFileSync(inside(file), before);
    }
  }
  rmSync(path, { recursive: true });
});

test('numbers that blocks cannot hold are named with their file and tensor', async () => {
  const path = join(out('nan'), 'llama2');
  cpSync(llama2('llama2'), path, { recursive: true });
  const name = 'model.layers.1.mlp.up_proj.weight';
  const index = JSON.parse(readFileSync(join(path, 'model.safetensors.index.json'), 'utf8')) as {
    weight_map: Record<string, string>;
  };
  const file = index.weight_map[name]!;
  const tensors = await tensorsOf(join(path, file));
  tensors[name]!.bytes.fill(0xff, 6000, 6004); // a NaN in every type
  write(path, file, safetensors(tensors));
  const error = await errorOf(() => convert({ only: 'llm', llm: path, out: out('nan.gguf'), type: 'q8_0' }));
  assert.is(error.code, 'ERR_FILE_FORMAT', error.message);
  assert.match(
    error.message,
    /nan\/llama2\/model-0000\d-of-00002\.safetensors: model\.layers\.1\.mlp\.up_proj\.weight holds the value NaN/,
  );
  assert.not(existsSync(out('nan.gguf')));
});

test.run();
