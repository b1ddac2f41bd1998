// The converter: every number arrives where it belongs, in the type asked for, and mix-ups are told as what they are.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon, type GgufKey } from '../lib/addon.js';
import { headCount, PUBLISHED } from '../lib/convert/config.js';
import { rotaryPairs } from '../lib/convert/rows.js';
import { outputType, storedType } from '../lib/convert/types.js';
import { convert, type ConvertOptions } from '../lib/convert.js';
import { openCheckpoint } from '../lib/formats/checkpoint.js';
import { openGguf, type GgufFile } from '../lib/formats/gguf.js';
import { toFloat32 } from '../lib/formats/numbers.js';
import type { DType } from '../lib/formats/tensor.js';
import {
  errorOf,
  floats,
  pth,
  safetensors,
  statePickle,
  temporaryFolder,
  tensorOpcodes,
  write,
  type StoredTensor,
} from './checkpoint-builder.js';
import { root } from './checkout.js';

const test = suite('convert');
const folder = temporaryFolder('convert');
const fixtures = join(root, 'test/fixtures');
const gqa = (name: string) => join(fixtures, 'tiny-gqa', name);
const llama2 = (name: string) => join(fixtures, 'tiny-llama2', name);
const out = (name: string) => join(folder, name);

/** The two fixtures: with a Q-Former and grouped queries, and without a Q-Former. */
const withQformer = {
  vit: gqa('eva_vit_g.pth'),
  qformer: gqa('blip2_pretrained_flant5xxl.pth'),
  projection: gqa('pretrained_minigpt4.pth'),
  config: gqa('config.json'),
};
const without = {
  vit: llama2('eva_vit_g.pth'),
  projection: llama2('pretrained_minigpt4.pth'),
  llm: llama2('llama2'),
  config: llama2('config.json'),
};

async function converted(name: string, options: Omit<ConvertOptions, 'out'>): Promise<GgufFile> {
  const path = out(name);
  await convert({ ...options, out: path });
  return openGguf(path);
}

const keyOf = (file: GgufFile, name: string): GgufKey['value'] | undefined =>
  file.keys.find(({ key }) => key === name)?.value;

async function bytesOf(file: GgufFile, name: string): Promise<Buffer> {
  const place = file.tensors.find((tensor) => tensor.name === name);
  assert.ok(place, `${name} is missing`);
  return place.part.read(place.position, place.bytes);
}

async function valuesOf(file: GgufFile, name: string): Promise<number[]> {
  return [...toFloat32(file.tensors.find((tensor) => tensor.name === name)!.type as DType, await bytesOf(file, name))];
}

async function sourceValues(path: string, name: string): Promise<number[]> {
  const checkpoint = await openCheckpoint(path);
  const tensor = checkpoint.tensors.get(name)!;
  const values = [...toFloat32(tensor.dtype, await tensor.read())];
  await checkpoint.close();
  return values;
}

/** All tensors of a checkpoint under other names; undefined leaves one out. */
async function renamed(
  path: string,
  rename: (name: string) => string | undefined,
): Promise<Record<string, StoredTensor>> {
  const checkpoint = await openCheckpoint(path);
  const tensors: Record<string, StoredTensor> = {};
  for (const [name, tensor] of checkpoint.tensors) {
    const to = rename(name);
    if (to !== undefined) tensors[to] = { dtype: tensor.dtype, shape: tensor.shape, bytes: await tensor.read() };
  }
  await checkpoint.close();
  return tensors;
}

test('the language model equals the one that other tools wrote, byte for byte', async () => {
  const ours = await converted('llm.gguf', { llm: gqa('vicuna-bin'), only: 'llm' });
  const theirs = await openGguf(gqa('vicuna-f16.gguf'));
  assert.equal(ours.tensors.map(({ name }) => name).sort(), theirs.tensors.map(({ name }) => name).sort());
  for (const { name, type, shape } of theirs.tensors) {
    const found = ours.tensors.find((tensor) => tensor.name === name)!;
    assert.is(found.type, type, name);
    assert.equal(found.shape, shape, name);
    assert.ok((await bytesOf(ours, name)).equals(await bytesOf(theirs, name)), `${name} differs`);
  }
  for (const { key, value } of theirs.keys) if (key !== 'general.name') assert.equal(keyOf(ours, key), value, key);
  await ours.close();
  await theirs.close();
});

test('a bundle with a Q-Former: every tensor in its place', async () => {
  const file = await converted('bundle.gguf', { ...withQformer, llm: gqa('vicuna-bin'), type: 'f32' });
  const same = async (name: string, path: string, source: string) =>
    assert.equal(await valuesOf(file, name), await sourceValues(path, source), name);
  await same('v.class_embd', withQformer.vit, 'cls_token');
  await same('v.position_embd.weight', withQformer.vit, 'pos_embed');
  await same('v.patch_embd.weight', withQformer.vit, 'patch_embed.proj.weight');
  await same('v.blk.0.ln2.bias', withQformer.vit, 'blocks.0.norm2.bias');
  await same('v.blk.0.attn_qkv.weight', withQformer.vit, 'blocks.0.attn.qkv.weight');
  await same('v.blk.0.ffn_down.weight', withQformer.vit, 'blocks.0.mlp.fc2.weight');
  const bias = await valuesOf(file, 'v.blk.0.attn_qkv.bias');
  assert.equal(bias.slice(0, 176), await sourceValues(withQformer.vit, 'blocks.0.attn.q_bias'));
  assert.ok(bias.slice(176, 352).every((value) => value === 0));
  assert.equal(bias.slice(352), await sourceValues(withQformer.vit, 'blocks.0.attn.v_bias'));
  await same('v.post_ln.weight', withQformer.qformer, 'ln_vision.weight');
  await same('qf.query_tokens', withQformer.qformer, 'query_tokens');
  const layer = 'Qformer.bert.encoder.layer.2.';
  await same('qf.blk.2.attn_k.weight', withQformer.qformer, `${layer}attention.self.key.weight`);
  await same('qf.blk.2.cross_v.weight', withQformer.qformer, `${layer}crossattention.self.value.weight`);
  await same('qf.blk.2.cross_norm.bias', withQformer.qformer, `${layer}crossattention.output.LayerNorm.bias`);
  // Not the text half's: intermediate.dense and output.dense are in the file too.
  await same('qf.blk.2.ffn_up.weight', withQformer.qformer, `${layer}intermediate_query.dense.weight`);
  await same('qf.blk.2.ffn_norm.weight', withQformer.qformer, `${layer}output_query.LayerNorm.weight`);
  await same('mm.weight', withQformer.projection, 'llama_proj.weight');
  await same('token_embd.weight', gqa('vicuna-bin'), 'model.embed_tokens.weight');
  const names = file.tensors.map(({ name }) => name);
  // 6 around the ViT's blocks, 12 of its one block, 3 before the Q-Former's layers, 16 of each layer, 10 of each that looks,
  // the projection, and 9 of each of the language model's two layers beside three.
  assert.is(names.length, 6 + 12 + 3 + 3 * 16 + 2 * 10 + 2 + 2 * 9 + 3);
  assert.not(
    names.some((name) => name.startsWith('v.blk.1.')),
    'the block that is not used',
  );
  const keys: Record<string, GgufKey['value']> = {
    'general.architecture': 'minigpt4',
    'general.name': 'bundle',
    'general.file_type': 0,
    'minigpt4.vit.image_size': 56,
    'minigpt4.vit.head_count': 2,
    'minigpt4.vit.block_count': 1,
    'minigpt4.vit.feed_forward_length': 224,
    'minigpt4.qformer.head_count': 4,
    'minigpt4.qformer.block_count': 3,
    'minigpt4.qformer.query_count': 8,
    'minigpt4.qformer.cross_attention_every': 2,
    'minigpt4.variant': 'minigpt4-vicuna0',
    'minigpt4.template': 'vicuna0',
    'minigpt4.projection.input_length': 32,
    'minigpt4.projection.output_length': 128,
    'minigpt4.projection.patches_per_token': 1,
    'llama.attention.head_count': 4,
    'llama.attention.head_count_kv': 2,
    'llama.vocab_size': 512,
  };
  for (const [key, value] of Object.entries(keys)) assert.equal(keyOf(file, key), value, key);
  const sources = keyOf(file, 'minigpt4.sources') as string[];
  assert.equal(
    sources.map((source) => source.split(' ').slice(0, -1).join(' ')),
    [
      'vit eva_vit_g.pth',
      'qformer blip2_pretrained_flant5xxl.pth',
      'projection pretrained_minigpt4.pth',
      'llm pytorch_model-00001-of-00002.bin',
      'llm pytorch_model-00002-of-00002.bin',
      'tokenizer tokenizer.model',
    ],
  );
  await file.close();
});

test("Hugging Face's names of the vision parts give the same file", async () => {
  const block = (name: string) =>
    name
      .replace('blocks.', 'vision_model.encoder.layers.')
      .replace('.norm', '.layer_norm')
      .replace('attn.qkv', 'self_attn.qkv')
      .replace('attn.proj', 'self_attn.projection');
  const vit = await renamed(withQformer.vit, (name) => {
    if (name.startsWith('blocks.1.') || /^(norm|head)\./.test(name)) return undefined; // holds just the blocks that are used
    if (name === 'cls_token') return 'vision_model.embeddings.class_embedding';
    if (name === 'pos_embed') return 'vision_model.embeddings.position_embedding';
    return name.startsWith('patch_embed.proj')
      ? name.replace('patch_embed.proj', 'vision_model.embeddings.patch_embedding')
      : block(name);
  });
  const inner = 'vision_model.encoder.layers.0.attn.';
  const [q, v] = [vit[`${inner}q_bias`]!, vit[`${inner}v_bias`]!];
  delete vit[`${inner}q_bias`];
  delete vit[`${inner}v_bias`];
  vit['vision_model.encoder.layers.0.self_attn.qkv.bias'] = {
    dtype: 'f16',
    shape: [528],
    bytes: Buffer.concat([q.bytes, Buffer.alloc(352), v.bytes]),
  };
  const qformer = await renamed(withQformer.qformer, (name) => {
    if (name === 'query_tokens') return name;
    if (name.startsWith('ln_vision')) return name.replace('ln_vision', 'vision_model.post_layernorm');
    if (!name.startsWith('Qformer.bert.') || name.includes('_embeddings') || name.includes('position_ids'))
      return undefined;
    return name
      .replace('Qformer.bert.embeddings.LayerNorm', 'qformer.layernorm')
      .replace('Qformer.bert.', 'qformer.')
      .replace('.self.', '.attention.');
  });
  const path = out('blip2');
  mkdirSync(path);
  write(path, 'model.safetensors', safetensors({ ...vit, ...qformer }));
  const { config } = withQformer;
  const original = await converted('eva.gguf', {
    vit: withQformer.vit,
    qformer: withQformer.qformer,
    config,
    only: 'vision',
    type: 'f32',
  });
  const theirs = await converted('hf.gguf', { vit: path, qformer: path, config, only: 'vision', type: 'f32' });
  assert.equal(
    theirs.tensors.map(({ name }) => name),
    original.tensors.map(({ name }) => name),
  );
  for (const { name } of original.tensors)
    assert.ok((await bytesOf(theirs, name)).equals(await bytesOf(original, name)), `${name} differs`);
  await original.close();
  await theirs.close();

  // Without a Q-Former that norm was never loaded: it must not be taken from the ViT's file.
  const bare = await converted('bare.gguf', {
    vit: path,
    config: write(folder, 'bare.json', '{"vit": {"heads": 2, "depth": 1}, "qformer": null}'),
    only: 'vision',
  });
  assert.ok((await valuesOf(bare, 'v.post_ln.weight')).every((value) => value === 1));
  assert.ok((await valuesOf(bare, 'v.post_ln.bias')).every((value) => value === 0));
  await bare.close();
});

test('without a Q-Former', async () => {
  const file = await converted('llama2.gguf', { ...without, type: 'f16' });
  assert.is(keyOf(file, 'minigpt4.projection.patches_per_token'), 4);
  assert.is(keyOf(file, 'minigpt4.variant'), 'minigpt4-llama2');
  assert.is(keyOf(file, 'minigpt4.template'), 'llama2');
  assert.not(file.keys.some(({ key }) => key.startsWith('minigpt4.qformer.')));
  assert.ok((await valuesOf(file, 'v.post_ln.weight')).every((value) => value === 1));
  await file.close();
  const worded = await converted('worded.gguf', { ...without, template: 'vicuna0' });
  assert.is(keyOf(worded, 'minigpt4.template'), 'vicuna0');
  await worded.close();
  // A checkpoint that trained the norm brings its own.
  const tensors = await renamed(without.projection, (name) => name);
  const norm = { dtype: 'f32', shape: [88], bytes: floats(...Array.from({ length: 88 }, (_, i) => i)) };
  const trained = write(
    folder,
    'trained.safetensors',
    safetensors({ ...tensors, 'ln_vision.weight': norm, 'ln_vision.bias': norm }),
  );
  const own = await converted('own.gguf', { ...without, projection: trained });
  assert.is((await valuesOf(own, 'v.post_ln.bias'))[5], 5);
  await own.close();
});

test('a language model in GGUF is taken as it is', async () => {
  const given = await openGguf(gqa('vicuna-f16.gguf'));
  const file = await converted('as-is.gguf', { ...withQformer, llm: gqa('vicuna-f16.gguf'), type: 'q4_0' });
  for (const { name, type } of given.tensors) {
    assert.is(file.tensors.find((tensor) => tensor.name === name)?.type, type, name);
    assert.ok((await bytesOf(file, name)).equals(await bytesOf(given, name)), `${name} differs`);
  }
  for (const { key, value } of given.keys) if (!key.startsWith('general.')) assert.equal(keyOf(file, key), value, key);
  assert.is(keyOf(file, 'general.architecture'), 'minigpt4');
  assert.is(file.tensors.find(({ name }) => name === 'v.blk.0.ffn_down.weight')!.type, 'q4_0'); // rows of 224
  await file.close();
  await given.close();
});

test('one part alone', async () => {
  const projection = await converted('projection.gguf', {
    projection: gqa('pretrained_minigpt4.pth'),
    config: gqa('config.json'),
    only: 'projection',
  });
  assert.is(keyOf(projection, 'general.architecture'), 'minigpt4-projection');
  assert.is(keyOf(projection, 'minigpt4.projection.patches_per_token'), 1);
  assert.equal(
    projection.tensors.map(({ name, type }) => `${name} ${type}`),
    ['mm.weight f32', 'mm.bias f32'],
  );
  await projection.close();
  const other = await converted('projection4.gguf', {
    projection: llama2('pretrained_minigpt4.pth'),
    config: llama2('config.json'),
    only: 'projection',
  });
  assert.is(keyOf(other, 'minigpt4.projection.patches_per_token'), 4);
  await other.close();
  const vision = await converted('vision.gguf', {
    vit: withQformer.vit,
    qformer: withQformer.qformer,
    config: withQformer.config,
    only: 'vision',
  });
  assert.not(vision.tensors.some(({ name }) => name.startsWith('mm.') || name.startsWith('token_embd')));
  assert.not(vision.keys.some(({ key }) => key.startsWith('llama.') || key.startsWith('minigpt4.projection.')));
  await vision.close();
});

test('types: the asked one where blocks divide the rows', async () => {
  assert.is(storedType('q4_k', [10, 512]), 'q4_k');
  assert.is(storedType('q4_k', [10, 1408]), 'q5_0');
  assert.is(storedType('q5_k', [10, 1408]), 'q5_1');
  assert.is(storedType('q6_k', [10, 1408]), 'q8_0');
  assert.is(storedType('q4_0', [10, 1408]), 'q4_0');
  assert.is(storedType('q4_k', [10, 264]), 'f16');
  assert.is(storedType('q8_0', [1408, 588]), 'f16');
  assert.is(storedType('bf16', [10, 264]), 'bf16');
  assert.is(storedType('q4_k', [1024]), 'f32');
  assert.is(outputType('q4_k'), 'q6_k');
  assert.is(outputType('q8_0'), 'q8_0');
  const file = await converted('types.gguf', { ...without, type: 'q4_k', vitType: 'q8_0' });
  const type = (name: string) => file.tensors.find((tensor) => tensor.name === name)!.type;
  assert.is(type('v.blk.0.attn_qkv.weight'), 'f16'); // rows of 88
  assert.is(type('v.blk.0.ffn_down.weight'), 'q8_0'); // rows of 256
  assert.is(type('v.position_embd.weight'), 'f32');
  assert.is(type('blk.0.attn_q.weight'), 'q4_k');
  assert.is(type('output.weight'), 'q6_k');
  assert.is(type('token_embd.weight'), 'q4_k');
  assert.is(type('blk.0.attn_norm.weight'), 'f32');
  assert.is(type('mm.weight'), 'f32');
  assert.is(keyOf(file, 'general.file_type'), 14);
  await file.close();
  const half = await converted('half.gguf', { ...withQformer, llm: gqa('vicuna-bin'), type: 'f16' });
  assert.is(half.tensors.find(({ name }) => name === 'qf.blk.0.attn_q.weight')!.type, 'f32');
  await half.close();
  const both = await converted('both.gguf', {
    ...withQformer,
    llm: gqa('vicuna-bin'),
    type: 'f16',
    qformerType: 'q8_0',
    llmType: 'q4_0',
  });
  assert.is(both.tensors.find(({ name }) => name === 'qf.blk.0.attn_q.weight')!.type, 'q8_0');
  assert.is(both.tensors.find(({ name }) => name === 'blk.0.attn_q.weight')!.type, 'q4_0');
  await both.close();
});

test('rotary pairs, also where a piece begins within a head', async () => {
  // Two heads of four rows of two numbers: rows 0, 1, 2, 3 of a head become 0, 2, 1, 3.
  const values = Float32Array.from({ length: 16 }, (_, i) => i);
  const tensor = rotaryPairs(
    {
      name: 'q',
      dtype: 'f32',
      shape: [8, 2],
      strides: [2, 1],
      file: '',
      read: async (from = 0, count = 16 - from) => new Uint8Array(values.slice(from, from + count).buffer),
    },
    2,
  );
  const whole = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
  assert.equal([...toFloat32('f32', await tensor.read())], whole);
  for (let from = 0; from < 16; from += 2)
    assert.equal(
      [...toFloat32('f32', await tensor.read(from, 4 > 16 - from ? 2 : 4))],
      whole.slice(from, from + (4 > 16 - from ? 2 : 4)),
    );
});

/** The fixture's language model as the difference between itself and a LLaMA with one row less. */
async function deltaFolders(): Promise<{ base: string; delta: string }> {
  const tensors = await renamed(llama2('llama2'), (name) => name);
  const base: Record<string, StoredTensor> = {};
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    const longer = name === 'lm_head.weight' || name === 'model.embed_tokens.weight';
    // Any other numbers serve as a base: those of the tensor, from the end to the beginning.
    const values = Buffer.from(new Uint16Array(new Uint16Array(bytes.slice().buffer).reverse()).buffer);
    base[name] = longer ? { dtype, shape: [511, 256], bytes: values.subarray(512) } : { dtype, shape, bytes: values };
  }
  const paths = { base: out('llama'), delta: out('vicuna-delta') };
  for (const path of Object.values(paths)) {
    rmSync(path, { recursive: true, force: true });
    cpSync(llama2('llama2'), path, { recursive: true, filter: (file) => !/safetensors/.test(file) });
  }
  write(paths.base, 'model.safetensors', safetensors(base));
  write(paths.delta, 'model.safetensors', safetensors(tensors));
  return paths;
}

test('LLaMA and a Vicuna v0 delta', async () => {
  const { base, delta } = await deltaFolders();
  const file = await converted('vicuna.gguf', { llm: delta, deltaBase: base, only: 'llm' });
  for (const [ours, source] of [
    ['blk.1.ffn_up.weight', 'model.layers.1.mlp.up_proj.weight'],
    ['token_embd.weight', 'model.embed_tokens.weight'],
  ]) {
    const [sum, a, b] = [
      await valuesOf(file, ours!),
      await sourceValues(base, source!),
      await sourceValues(delta, source!),
    ];
    for (let i = 0; i < sum.length; i++) {
      const exact = (a[i] ?? 0) + b[i]!;
      // Rounded to half precision once: half a unit in the last of 11 places, or of the smallest number.
      assert.ok(
        Math.abs(sum[i]! - exact) <= Math.max(Math.abs(exact) * 2 ** -11, 2 ** -25),
        `${ours} ${i}: ${sum[i]} for ${exact}`,
      );
    }
    if (ours === 'token_embd.weight') assert.equal(sum.slice(-256), b.slice(-256)); // the row that LLaMA has not
  }
  const sources = keyOf(file, 'minigpt4.sources') as string[];
  assert.ok(sources.some((source) => source.startsWith('delta-base model.safetensors ')));
  await file.close();

  const alone = await convert({ llm: delta, out: out('alone.gguf'), only: 'llm' });
  assert.match(alone.warnings.join(), /looks like a delta/);
  const equal = await convert({ llm: delta, deltaBase: llama2('llama2'), out: out('equal.gguf'), only: 'llm' });
  assert.match(equal.warnings.join(), /from version 1\.1 on/);
  const error = await errorOf(() =>
    convert({ llm: delta, deltaBase: gqa('vicuna-bin'), out: out('mixed.gguf'), only: 'llm' }),
  );
  assert.is(error.code, 'ERR_SHAPE');
  assert.match(error.message, /\[512, 256\].*\[512, 128\].*same size/);
});

test('an embedding with more rows than the tokenizer has pieces', async () => {
  const path = out('padded');
  cpSync(llama2('llama2'), path, { recursive: true, filter: (file) => !/safetensors/.test(file) });
  const tensors = await renamed(llama2('llama2'), (name) => name);
  for (const name of ['lm_head.weight', 'model.embed_tokens.weight']) {
    tensors[name] = {
      dtype: 'f16',
      shape: [514, 256],
      bytes: Buffer.concat([tensors[name]!.bytes, Buffer.alloc(1024)]),
    };
  }
  write(path, 'model.safetensors', safetensors(tensors));
  write(path, 'added_tokens.json', '{"[PAD]": 512}');
  const file = await converted('padded.gguf', { llm: path, only: 'llm' });
  assert.equal((keyOf(file, 'tokenizer.ggml.tokens') as string[]).slice(512), ['[PAD]', '[PAD513]']);
  assert.equal((keyOf(file, 'tokenizer.ggml.token_type') as number[]).slice(512), [3, 5]);
  assert.is(keyOf(file, 'llama.vocab_size'), 514);
  await file.close();
  assert.is(addon.createTokenizer(out('padded.gguf')).size, 514);
});

test('mix-ups are told as what they are', async () => {
  const small = { ...withQformer, llm: gqa('vicuna-bin') };
  const noHeads = write(folder, 'no-heads.json', '{"vit": {"depth": 1}}');
  const noDepth = write(folder, 'no-depth.json', '{"vit": {"heads": 2}}');
  const otherWidth = write(folder, 'other-width.json', '{"vit": {"heads": 2, "depth": 1, "width": 1408}}');
  const deep = write(folder, 'deep.json', '{"vit": {"heads": 2, "depth": 3}}');
  const lora = write(
    folder,
    'v2.pth',
    pth(
      statePickle({
        'llama_proj.weight': tensorOpcodes({ storage: '0', values: 2, shape: [1, 2], strides: [2, 1] }),
        'llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight': tensorOpcodes({
          storage: '0',
          values: 2,
          shape: [2],
          strides: [1],
        }),
      }),
      { 0: floats(1, 2) },
    ),
  );
  /** One that takes vectors of another length. */
  const projection = (input: number) =>
    write(
      folder,
      `projection-${input}.safetensors`,
      safetensors({
        'llama_proj.weight': { dtype: 'f32', shape: [128, input], bytes: new Uint8Array(128 * input * 4) },
        'llama_proj.bias': { dtype: 'f32', shape: [128], bytes: new Uint8Array(512) },
      }),
    );
  const cases: [string, { [Name in keyof ConvertOptions]?: ConvertOptions[Name] | undefined }, string, RegExp][] = [
    [
      'sizes',
      { ...small, llm: llama2('llama2') },
      'ERR_SHAPE',
      /projection .* gives vectors of 128, but the language model .* has the width 256; .*different sizes/,
    ],
    [
      'Q-Former left out',
      { ...small, qformer: undefined, config: out('bare.json') },
      'ERR_SHAPE',
      /takes vectors of 32, but 4 patches side by side have 704/,
    ],
    [
      'Q-Former too many',
      {
        ...without,
        qformer: withQformer.qformer,
        config: write(folder, 'llama2-q.json', '{"vit": {"heads": 1, "depth": 2}, "qformer": {"heads": 4}}'),
      },
      'ERR_SHAPE',
      /ln_vision\.weight has the shape \[176\], expected \[88\] \(the ViT has the width 88\)/,
    ],
    [
      'a projection of the other kind',
      { ...small, projection: projection(4 * 176) },
      'ERR_SHAPE',
      /takes vectors of 704, but the Q-Former gives 32: it was trained without a Q-Former/,
    ],
    [
      'a Q-Former forgotten',
      { ...small, qformer: undefined, projection: projection(768), config: out('bare.json') },
      'ERR_SHAPE',
      /takes vectors of 768, .*have 704 .*give its file with --qformer/,
    ],
    [
      'Q-Former against the configuration',
      { ...small, qformer: undefined },
      'ERR_ARGUMENT',
      /describes a Q-Former, but none was given/,
    ],
    [
      'no Q-Former by the configuration',
      { ...small, config: llama2('config.json') },
      'ERR_ARGUMENT',
      /says there is no Q-Former/,
    ],
    [
      'files the other way round',
      { ...small, vit: withQformer.qformer, qformer: withQformer.vit },
      'ERR_MISSING_TENSOR',
      /blip2_pretrained_flant5xxl\.pth lacks the tensor patch_embed\.proj\.weight; it holds a Q-Former/,
    ],
    [
      'a ViT for a projection',
      { ...small, projection: withQformer.vit },
      'ERR_MISSING_TENSOR',
      /lacks the tensor llama_proj\.weight; it holds a ViT/,
    ],
    ['MiniGPT-v2', { ...small, projection: lora }, 'ERR_UNSUPPORTED', /MiniGPT-v2/],
    [
      'no head counts',
      { ...small, config: noHeads },
      'ERR_ARGUMENT',
      /width 176, .*not a published size \(1408\).*vit\.heads/,
    ],
    ['no depth', { ...small, config: noDepth }, 'ERR_ARGUMENT', /holds 2 blocks .*vit\.depth/],
    ['no configuration', { ...small, config: undefined }, 'ERR_ARGUMENT', /--config/],
    [
      'another width',
      { ...small, config: otherWidth },
      'ERR_SHAPE',
      /says vit\.width 1408, but the tensors of .* have 176/,
    ],
    [
      'more blocks than there are',
      { ...small, config: deep },
      'ERR_MISSING_TENSOR',
      /holds 2 ViT blocks, expected at least 3/,
    ],
    [
      'a bad configuration',
      { ...small, config: write(folder, 'bad.json', '{"vit": {"heads": -1}}') },
      'ERR_FILE_FORMAT',
      /vit\.heads/,
    ],
    [
      'a file for a folder',
      { ...small, llm: join(llama2('llama2'), 'model-00001-of-00002.safetensors') },
      'ERR_ARGUMENT',
      /expected the folder/,
    ],
    [
      'a GGUF of another kind',
      { ...small, llm: out('vision.gguf') },
      'ERR_UNSUPPORTED',
      /architecture 'minigpt4', expected 'llama'/,
    ],
    [
      'a GGUF with a type',
      { ...small, llm: gqa('vicuna-f16.gguf'), llmType: 'q4_0' },
      'ERR_ARGUMENT',
      /taken as it is/,
    ],
    ['over a source', { ...small, out: gqa('eva_vit_g.pth') }, 'ERR_ARGUMENT', /is one of the sources/],
    ['into nowhere', { ...small, out: join(folder, 'nowhere/x.gguf') }, 'ERR_FILE_NOT_FOUND', /no directory/],
    ['onto a folder', { ...small, out: folder }, 'ERR_ARGUMENT', /is a directory/],
  ];
  write(folder, 'bare.json', '{"vit": {"heads": 2, "depth": 1}, "qformer": null}');
  for (const [name, options, code, message] of cases) {
    const given = Object.fromEntries(
      Object.entries({ out: out('mixed.gguf'), ...options }).filter(([, value]) => value !== undefined),
    );
    const error = await errorOf(() => convert(given as unknown as ConvertOptions));
    assert.is(error.code, code, `${name}: ${error.message}`);
    assert.match(error.message, message, name);
  }
  assert.not(readdirSync(folder).some((file) => file.startsWith('mixed.gguf')));
});

test('language models that are no plain llama', async () => {
  const path = out('other');
  cpSync(llama2('llama2'), path, { recursive: true });
  const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as Record<string, unknown>;
  const cases: [Record<string, unknown>, string, RegExp][] = [
    [{ model_type: 'mistral' }, 'ERR_UNSUPPORTED', /'mistral', expected 'llama'/],
    [{ attention_bias: true }, 'ERR_UNSUPPORTED', /biases/],
    [{ rope_scaling: { rope_type: 'llama3', factor: 8 } }, 'ERR_UNSUPPORTED', /'llama3'/],
    [
      { hidden_size: 128 },
      'ERR_SHAPE',
      /embed_tokens\.weight has the shape \[512, 256\], expected \[512, 128\] \(by config\.json\)/,
    ],
    [{ num_hidden_layers: 3 }, 'ERR_MISSING_TENSOR', /lacks the tensor model\.layers\.2\.input_layernorm\.weight/],
    [{ num_attention_heads: 3 }, 'ERR_SHAPE', /do not go together/],
    [{ hidden_size: 'wide' }, 'ERR_FILE_FORMAT', /hidden_size/],
    [{ num_hidden_layers: 1e9 }, 'ERR_FILE_FORMAT', /num_hidden_layers/],
  ];
  for (const [change, code, message] of cases) {
    write(path, 'config.json', JSON.stringify({ ...config, ...change }));
    const error = await errorOf(() => convert({ llm: path, out: out('other.gguf'), only: 'llm' }));
    assert.is(error.code, code, error.message);
    assert.match(error.message, message);
  }
  write(path, 'config.json', JSON.stringify({ ...config, rope_scaling: { type: 'linear', factor: 4 } }));
  const scaled = await converted('scaled.gguf', { llm: path, only: 'llm' });
  assert.is(keyOf(scaled, 'llama.rope.scaling.type'), 'linear');
  assert.is(keyOf(scaled, 'llama.rope.scaling.factor'), 4);
  await scaled.close();
  rmSync(join(path, 'tokenizer.model'));
  assert.match(
    (await errorOf(() => convert({ llm: path, out: out('other.gguf'), only: 'llm' }))).message,
    /no tokenizer\.model/,
  );
});

test('wrong use is told before anything is opened', async () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{}, /--out/],
    [{ out: 'x' }, /a bundle needs --vit, --projection, --llm/],
    [{ out: 'x', only: 'vison' }, /--only: expected one of .*did you mean vision/],
    [{ out: 'x', only: 'llm', llm: 'y', vit: 'z' }, /--only llm takes no --vit/],
    [{ out: 'x', only: 'llm', llm: 'y', type: 'q4k' }, /--type: expected one of .*did you mean q4_k/],
    [{ out: 'x', only: 'llm', llm: 'y', type: 'q2_k' }, /--type: expected one of/],
    [{ out: 'x', vit: 'a', projection: 'b', llm: 'c', qformerType: 'f16' }, /--qformer-type needs --qformer/],
    [{ out: 'x', vit: 'a', projection: 'b', llm: 'c', template: 'vicuna' }, /--template: .*did you mean vicuna0/],
  ];
  for (const [options, message] of cases) {
    const error = await errorOf(() => convert(options as unknown as ConvertOptions));
    assert.is(error.code, 'ERR_ARGUMENT');
    assert.match(error.message, message);
  }
});

test('head counts of the published sizes are known', () => {
  assert.is(headCount('ViT', 'vit', undefined, 1408, PUBLISHED.vit), 16);
  assert.is(headCount('Q-Former', 'qformer', undefined, 768, PUBLISHED.qformer), 12);
  assert.throws(() => headCount('ViT', 'vit', 3, 1408, PUBLISHED.vit), /no multiple of 3/);
});

test('progress goes from nothing to all, twice', async () => {
  const seen: string[] = [];
  let last = 0;
  await convert({
    ...without,
    out: out('progress.gguf'),
    onProgress: ({ stage, done, total }) => {
      if (seen.at(-1) !== stage) seen.push(stage);
      else assert.ok(done >= last);
      assert.ok(done <= total);
      last = done;
    },
  });
  assert.equal(seen, ['hash', 'write']);
});

test('what is aborted leaves nothing, and what was there stays', async () => {
  const path = write(folder, 'kept.gguf', 'before');
  for (const stop of ['hash', 'write']) {
    const controller = new AbortController();
    const error = await errorOf(() =>
      convert({
        ...without,
        out: path,
        signal: controller.signal,
        onProgress: ({ stage }) => {
          if (stage === stop) controller.abort();
        },
      }),
    );
    assert.is(error.code, 'ERR_ABORTED');
    assert.is(readFileSync(path, 'utf8'), 'before');
    // The unfinished file goes with its writer, which may still be at its last piece.
    for (let i = 0; i < 100 && readdirSync(folder).some((name) => name.startsWith('kept.gguf.')); i++)
      await new Promise((done) => setTimeout(done, 20));
    assert.equal(
      readdirSync(folder).filter((name) => name.startsWith('kept.gguf')),
      ['kept.gguf'],
    );
  }
  assert.ok(existsSync(path));
});

test.run();
