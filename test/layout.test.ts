// Models whose matrices lie in the CPU's layout: the same answers in every bit, nothing copied, and files that change while they are used.
import { copyFileSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon, type NativeLoadOptions, type NativeModel, type NativePromptPart } from '../lib/addon.js';
import { describeFile } from '../lib/convert/describe-file.js';
import { convert, type ConvertOptions } from '../lib/convert.js';
import { readProjection } from '../lib/export.js';
import { openGguf } from '../lib/formats/gguf.js';
import { embeddedModelPath } from '../lib/model.js';
import { Random } from '../lib/random.js';
import { temporaryFolder } from './checkpoint-builder.js';
import { root } from './checkout.js';
import { minigpt4 } from './command.js';
import { floatProducts } from './models.js';
import { rejects } from './rejects.js';

const test = suite('layout');
const folder = temporaryFolder('layout');
const out = (name: string) => join(folder, name);
const fixture = (set: string, name: string) => join(root, 'test/fixtures', set, name);

const withQformer = {
  vit: fixture('tiny-gqa', 'eva_vit_g.pth'),
  qformer: fixture('tiny-gqa', 'blip2_pretrained_flant5xxl.pth'),
  projection: fixture('tiny-gqa', 'pretrained_minigpt4.pth'),
  config: fixture('tiny-gqa', 'config.json'),
};
const bundles: Record<string, Omit<ConvertOptions, 'out'>> = {
  'with a Q-Former': { ...withQformer, llm: fixture('tiny-gqa', 'vicuna-f16.gguf') },
  'without one': {
    vit: fixture('tiny-llama2', 'eva_vit_g.pth'),
    projection: fixture('tiny-llama2', 'pretrained_minigpt4.pth'),
    llm: fixture('tiny-llama2', 'llama2'),
    config: fixture('tiny-llama2', 'config.json'),
  },
};

async function converted(name: string, options: Omit<ConvertOptions, 'out'>): Promise<string> {
  await convert({ ...options, out: out(name) });
  return out(name);
}
const toLayout = (model: string, name: string): Promise<string> => converted(name, { model, layout: 'cpu' });

async function withModel<T>(options: NativeLoadOptions, body: (model: NativeModel) => Promise<T>): Promise<T> {
  const model = await addon.loadModel({ contextLength: 256, ...options });
  try {
    return await body(model);
  } finally {
    await model.close();
  }
}

const pixels = Uint8Array.from({ length: 40 * 30 * 3 }, (_, i) => (i * 37) % 251);
const request = (prompt: NativePromptPart[], maxTokens = 12) => ({
  prompt,
  maxTokens,
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: 1,
  stop: [],
  stopIds: [],
});

/** The vectors of a picture, every stage of a prompt about it down to the logits, and an answer. */
async function everything(model: NativeModel) {
  const image = model.info().imageSize > 0 ? [await model.encodeImage(pixels, 40, 30)] : [];
  const prompt: NativePromptPart[] = [{ token: '<s>' }, 'See ', ...image, ' and say what it is.'];
  const answer = await model.openSequence().generate(request(prompt), () => {});
  return {
    image: image.map((one) => one.toFloat32Array()),
    stages: await model.tracePrompt(prompt),
    ids: Array.from(answer.ids),
  };
}

for (const [name, sources] of Object.entries(bundles)) {
  for (const type of ['f32', 'bf16', 'q4_0', 'q5_1', 'q8_0', 'q4_k', 'q6_k'] as const) {
    test(`the same bits at every level: a bundle ${name}, ${type}`, async () => {
      const plain = await converted('plain.gguf', { ...sources, type });
      const path = await converted('cpu.gguf', { ...sources, type, layout: 'cpu' });
      const expected = await withModel({ model: plain }, everything);
      assert.is(expected.ids.length, 12);
      const level = process.env['MINIGPT4_CPU_LEVEL'] || addon.cpuLevels().at(-1)!;
      const first: Partial<Record<string, typeof expected>> = { [floatProducts(level)]: expected };
      for (const cpuLevel of addon.cpuLevels()) {
        const here = (first[floatProducts(cpuLevel)] ??= await withModel({ model: plain, cpuLevel }, everything));
        assert.equal(await withModel({ model: path, cpuLevel }, everything), here, cpuLevel);
      }
      assert.equal(await withModel({ model: path, threads: 3 }, everything), expected);

      // made from the plain file it is the same, as far as it was made of the same
      const again = await openGguf(await toLayout(plain, 'again.gguf'));
      const straight = await openGguf(path);
      assert.equal(again.tensors.length, straight.tensors.length);
      for (const tensor of straight.tensors) {
        const twin = again.tensors.find((other) => other.name === tensor.name)!;
        assert.is(twin.grouped, tensor.grouped, tensor.name);
        assert.ok(
          (await twin.part.read(twin.position, twin.bytes)).equals(
            await tensor.part.read(tensor.position, tensor.bytes),
          ),
          tensor.name,
        );
      }
      await again.close();
      await straight.close();
    });
  }
}

test('a vision file, a language model and a projection of their own; memory says what is mapped', async () => {
  const sources = bundles['with a Q-Former']!;
  const { llm: _, ...vision } = sources;
  const parts = {
    model: await converted('vision.gguf', { ...vision, only: 'vision', layout: 'cpu' }),
    llm: await toLayout(sources.llm!, 'llm.gguf'),
    projection: await converted('projection.gguf', {
      projection: sources.projection!,
      config: sources.config!,
      only: 'projection',
      layout: 'cpu',
    }),
  };
  const expected = await withModel({ model: await converted('plain.gguf', sources) }, everything);
  await withModel(parts, async (model) => {
    assert.equal(await everything(model), expected);
    const { memory } = model.info();
    const held = (owner: string) => memory.find((holding) => holding.owner === owner)?.bytes ?? 0;
    for (const part of ['vit', 'qformer', 'projection', 'llm']) {
      assert.ok(held(`${part} weights (mapped)`) > 0, `${part}: ${JSON.stringify(memory)}`);
      // norms and tables alone are copied
      assert.ok(held(`${part} weights`) < held(`${part} weights (mapped)`) / 4, part);
    }
  });
  const alone = await withModel({ llm: sources.llm! }, everything);
  assert.equal(await withModel({ llm: parts.llm }, everything), alone);

  const { weight, bias } = await readProjection(parts.projection);
  assert.equal(
    { weight, bias },
    await readProjection(sources.projection!).then((p) => ({ weight: p.weight, bias: p.bias })),
  );
});

test('the file says what it stands for', async () => {
  const plain = await describeFile(embeddedModelPath);
  const path = await toLayout(embeddedModelPath, 'miniature.gguf');
  const file = await describeFile(path);
  const shapes = (of: typeof file) => of.tensors.map(({ name, type, shape }) => ({ name, type, shape }));
  assert.equal(shapes(file), shapes(plain));
  assert.is(file.parameters, plain.parameters);
  assert.match(file.notes.join(), /\d+ matrices lie in the CPU's layout/);
  const own = /^(general\.alignment|minigpt4\.layout.*)$/;
  const keys = (of: typeof file) => of.keys.filter(({ key }) => !own.test(key));
  assert.equal(keys(file), keys(plain));
  const native = await addon.readGguf(path);
  assert.equal(
    native.tensors.map(({ name, type, shape }) => ({ name, type, shape })),
    shapes(file),
  );
  for (const { name } of native.tensors)
    assert.equal(await addon.readGgufTensor(path, name), await addon.readGgufTensor(embeddedModelPath, name), name);
  // a program that does not know the layout finds shapes that no model has
  const bytes = readFileSync(path);
  const at = bytes.indexOf('token_embd.weight', bytes.indexOf('minigpt4.layout.shapes')) + 'token_embd.weight'.length;
  assert.is(bytes.readUInt32LE(at), 2);
  assert.is(bytes.readUInt32LE(at + 20), 24, 'I8');
  const { stdout } = await minigpt4(['inspect', '--tensors', path]);
  assert.match(stdout, /token_embd\.weight +\w+ +\[\d+, \d+\]/);
});

test('what cannot be asked for', async () => {
  const cpu = await toLayout(embeddedModelPath, 'cpu.gguf');
  const asked = (options: Partial<ConvertOptions>) => convert({ out: out('never.gguf'), ...options });
  const model = embeddedModelPath;
  const wrong: [Partial<ConvertOptions>, RegExp][] = [
    [{ model }, /--model needs --layout/],
    [{ model, layout: 'cpu', type: 'q4_0' }, /takes no --type/],
    [{ model, layout: 'cpu', only: 'llm' }, /takes no --only/],
    [{ model, layout: 'cpu', vit: model }, /takes no --vit/],
    [{ model, layout: 'cpux' as 'cpu' }, /did you mean cpu/],
    [{ model: fixture('tiny-gqa', 'eva_vit_g.pth'), layout: 'cpu' }, /expected a model file/],
  ];
  for (const [options, message] of wrong)
    assert.match((await rejects('ERR_ARGUMENT', asked(options))).message, message);
  const already = /stored in the CPU's layout already.*give the file/;
  assert.match((await rejects('ERR_UNSUPPORTED', asked({ model: cpu, layout: 'cpu' }))).message, already);
  const llm = await toLayout(fixture('tiny-gqa', 'vicuna-f16.gguf'), 'llm.gguf');
  assert.match((await rejects('ERR_UNSUPPORTED', asked({ llm, only: 'llm' }))).message, already);
});

test('another version of the layout is no file of ours', async () => {
  const path = await toLayout(embeddedModelPath, 'version.gguf');
  const bytes = readFileSync(path);
  const key = 'minigpt4.layout.version';
  bytes.writeUInt32LE(7, bytes.indexOf(key) + key.length + 4);
  writeFileSync(path, bytes);
  for (const read of [() => addon.loadModel({ model: path }), () => describeFile(path)])
    assert.match((await rejects('ERR_UNSUPPORTED', read())).message, /version 7.*version 2.*convert the model again/);
});

for (const [what, change] of Object.entries({
  truncated: (path: string) => truncateSync(path, 8192),
  'written to': (path: string) => utimesSync(path, 1, 1),
})) {
  test(`a file that is ${what} under a model gives errors, and nothing else`, async () => {
    const path = await toLayout(embeddedModelPath, 'changing.gguf');
    const other = out('other.gguf');
    copyFileSync(path, other);
    await withModel({ model: other }, async (unharmed) => {
      const expected = await everything(unharmed);
      await withModel({ model: path }, async (model) => {
        const before = model.openSequence();
        const prompt = [{ token: '<s>' }, 'Hello'];
        await before.generate(request(prompt), () => {});
        // an answer that is under way, too
        let told = 0;
        const running = model.openSequence().generate(request(prompt, 200), () => {
          if (told++ === 0) change(path);
        });
        await rejects('ERR_FILE_CHANGED', running);
        await rejects(
          'ERR_FILE_CHANGED',
          before.generate(request(prompt), () => {}),
        );
        await rejects('ERR_FILE_CHANGED', model.tracePrompt(prompt));
        await rejects('ERR_FILE_CHANGED', model.encodeImage(pixels, 40, 30));
        await rejects('ERR_FILE_CHANGED', model.encodeFeatures(pixels, 40, 30));
        const trainer = await model.openTrainer().catch((error: unknown) => error as Error);
        if (!(trainer instanceof Error)) await rejects('ERR_FILE_CHANGED', trainer.state());
      });
      assert.equal(await everything(unharmed), expected);
    });
  });
}

test('training starts from such a file and gives the same bits', async () => {
  const plain = await converted('plain.gguf', bundles['with a Q-Former']!);
  const trained = (model: string) =>
    withModel({ model }, async (loaded) => {
      const { imageTokens, projectionInput, bos } = loaded.info();
      const random = new Random(3);
      const ids = Int32Array.from([bos, ...new Array<number>(imageTokens).fill(-1), 9, 10]);
      const targets = ids.map((_, t) => (t >= ids.length - 2 ? 11 + t : -1));
      const features = Float32Array.from({ length: imageTokens * projectionInput }, () => random.uniform() - 0.5);
      const trainer = await loaded.openTrainer();
      const losses = [];
      for (let step = 0; step < 3; step++) {
        losses.push((await trainer.accumulate([{ ids, targets, features }])).loss);
        await trainer.apply({ rate: 1e-3 });
      }
      const { values } = await trainer.state();
      trainer.close();
      return { losses, values };
    });
  const expected = await trained(plain);
  assert.ok(expected.losses[2]! < expected.losses[0]!, 'it learns');
  assert.equal(await trained(await toLayout(plain, 'cpu.gguf')), expected);
});

test.run();
