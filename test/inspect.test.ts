// `minigpt4 inspect`: what each kind of file is said to be.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { describeFile } from '../lib/convert/describe-file.js';
import { floats, safetensors, temporaryFolder, write } from './checkpoint-builder.js';
import { root } from './checkout.js';
import { minigpt4 } from './command.js';

const test = suite('inspect');
const folder = temporaryFolder('inspect');
const fixture = (name: string) => join(root, 'test/fixtures/tiny-gqa', name);

test('what each file is', async () => {
  const cases: [string, RegExp, number][] = [
    ['eva_vit_g.pth', /PyTorch checkpoint: a ViT$/, 34],
    ['blip2_pretrained_flant5xxl.pth', /PyTorch checkpoint: a Q-Former$/, 96],
    ['pretrained_minigpt4.pth', /PyTorch checkpoint: a projection$/, 2],
    ['vicuna-bin', /Hugging Face folder: a language model$/, 23],
    ['vicuna-f16.gguf', /GGUF 3, architecture llama: a language model$/, 21],
    ['expected.safetensors', /safetensors: tensors such as /, 20],
  ];
  for (const [name, what, tensors] of cases) {
    const file = await describeFile(fixture(name));
    assert.match(file.what, what);
    assert.is(file.tensors.length, tensors, name);
    assert.is(
      file.types.reduce((sum, type) => sum + type.tensors, 0),
      tensors,
    );
    assert.ok(file.types.reduce((sum, type) => sum + type.bytes, 0) <= file.bytes);
  }
});

test('the table', async () => {
  const { code, stdout } = await minigpt4(['inspect', fixture('vicuna-f16.gguf')]);
  assert.is(code, 0);
  assert.match(stdout, /21 tensors, 352,896 numbers/);
  assert.match(stdout, /llama\.attention\.head_count_kv +u32 +2\n/);
  assert.match(stdout, /tokenizer\.ggml\.tokens +array +\["<unk>", "<s>", "<\/s>", .*512 in all\]/);
  assert.match(stdout, /blk\.0\.attn_k\.weight +f16 +\[64, 128\]\n/);
});

test('one object with everything', async () => {
  const { code, stdout } = await minigpt4(['inspect', '--json', fixture('pretrained_minigpt4.pth')]);
  assert.is(code, 0);
  const file = JSON.parse(stdout) as {
    format: string;
    parameters: number;
    tensors: { name: string; shape: number[] }[];
  };
  assert.is(file.format, 'pth');
  assert.is(file.parameters, 128 * 32 + 128);
  assert.equal(file.tensors[0]!.shape, [128, 32]);
});

test('names from a file move no cursor', async () => {
  const path = write(
    folder,
    'names.safetensors',
    safetensors({ 'a\x1b[2Jb': { dtype: 'f32', shape: [1], bytes: floats(1) } }),
  );
  const { stdout } = await minigpt4(['inspect', path]);
  assert.not(stdout.includes('\x1b'));
});

test('what cannot be inspected', async () => {
  for (const [path, message] of [
    [join(root, 'package.json'), /text file/],
    [join(root, 'lib'), /without model weights/],
    ['nowhere', /no such file/],
  ] as const) {
    const { code, stderr } = await minigpt4(['inspect', path]);
    assert.is(code, 1);
    assert.match(stderr, message);
  }
});

test.run();
