// The path of a GPU from JavaScript to the kernels and back: on the emulator, or on the device that MINIGPT4_TEST_DEVICE names. What the
// CPU computes from the same file is what is expected.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon, type NativeGenerateRequest, type NativeModel, type NativeTrainingSample } from '../lib/addon.js';
import { convert } from '../lib/convert.js';
import { MiniGptError } from '../lib/errors.js';
import { Random } from '../lib/random.js';
import { relativeError } from '../lib/verify/measure.js';
import { tolerance } from '../lib/verify/tolerance.js';
import {
  device,
  deviceModels,
  gray,
  question,
  request,
  scene,
  withModel,
  type DeviceModels,
  type Options,
} from './device-models.js';
import { rejects } from './rejects.js';

const test = suite(`device ${device}`);
let models: DeviceModels;

test.before(() => {
  models = deviceModels();
});
test.after(() => models.remove());

/** All stages of a picture and of a prompt with it, and a greedy answer. */
async function everything(options: Options) {
  return withModel(options, async (model) => {
    const { data, width, height } = scene();
    const image = await model.encodeImage(data, width, height);
    const size = model.info().imageSize;
    const seen = await model.traceImage(addon.normalise(await addon.resizeBicubic(data, width, height, size), size));
    const said = await model.tracePrompt(question(image));
    const answer = await model.openSequence().generate(request(question(image)), () => {});
    return { stages: { ...seen, ...said }, ids: Array.from(answer.ids), info: model.info() };
  });
}

test("a file in the CPU's layout says what to load instead; what the CPU computes may lie in one", async () => {
  const plain = await models.model('tiny-llama2', 'q8_0');
  const layout = join(models.folder, 'cpu.gguf');
  await convert({ model: plain, layout: 'cpu', out: layout });
  for (const wishes of [{}, { gpuLayers: 1 }, { gpuLayers: 0, visionDevice: 'gpu' as const }]) {
    const refused = await rejects('ERR_UNSUPPORTED', addon.loadModel({ model: layout, device, ...wishes }));
    assert.match(refused.message, /cpu\.gguf holds its matrices as the CPU computes with them.*without --layout cpu/);
  }
  const split = { device, gpuLayers: 0, visionDevice: 'gpu' as const };
  const expected = await everything({ ...split, model: plain });
  assert.equal((await everything({ ...split, model: plain, llm: layout })).stages, expected.stages);
});

for (const [name, type] of [
  ['tiny-llama2', 'f32'],
  ['tiny-llama2', 'f16'],
  ['tiny-llama2', 'q8_0'],
  ['tiny-llama2', 'q4_0'],
  ['tiny-llama2', 'q4_k'],
  ['tiny-gqa', 'f32'],
  ['tiny-gqa', 'f16'],
] as const) {
  test(`every stage is the CPU's, and so are the ids: ${name} ${type}`, async () => {
    const model = await models.model(name, type);
    const expected = await everything({ model, device: 'cpu', kvType: 'f32' });
    const found = await everything({ model, device, kvType: 'f32' });
    assert.not.equal(found.info.device, expected.info.device);
    const { stage: allowed } = tolerance(found.info, type);
    assert.equal(Object.keys(found.stages), Object.keys(expected.stages));
    for (const [stage, values] of Object.entries(expected.stages)) {
      const error = relativeError(found.stages[stage]!, values);
      assert.ok(error <= allowed, `${stage}: ${error}`);
    }
    const at = found.ids.findIndex((id, i) => id !== expected.ids[i]);
    if (at < 0) return;
    // a quantized model's logits may differ by what is allowed: then another id may be the best, if it is nearly as good
    assert.ok(allowed > 1e-2, `ids ${String(found.ids)}, expected ${String(expected.ids)}`);
    const { best, margin, largest } = await marginOf(model, expected.ids.slice(0, at), found.ids[at]!);
    assert.is(best, expected.ids[at], 'the CPU says so again');
    assert.ok(margin <= 2 * allowed * largest, `id ${found.ids[at]} at ${at} is ${margin} of ${largest} behind`);
  });
}

/** How far the CPU's logit of `id` is behind its best one after the question and these ids. */
async function marginOf(model: string, ids: number[], id: number) {
  return withModel({ model, device: 'cpu', kvType: 'f32' }, async (from) => {
    const { data, width, height } = scene();
    const image = await from.encodeImage(data, width, height);
    const { logits } = await from.tracePrompt([...question(image), { ids: Int32Array.from(ids) }]);
    const last = logits!.subarray(logits!.length - from.info().vocabulary);
    const best = last.indexOf(Math.max(...last));
    return { best, margin: last[best]! - last[id]!, largest: Math.max(...last.map(Math.abs)) };
  });
}

test('answers are the same alone and beside others, with f16 keys and values', async () => {
  const model = await models.model('tiny-llama2', 'q8_0');
  const pictures = [scene(), gray()];
  const wishes = (i: number): Partial<NativeGenerateRequest> => ({
    maxTokens: 6,
    seed: i,
    temperature: i % 2 ? 1.1 : 0,
    repetitionPenalty: i % 2 ? 1.2 : 1,
  });
  const ask = async (from: NativeModel, i: number) => {
    const { data, width, height } = pictures[i % 2]!;
    const image = await from.encodeImage(data, width, height);
    const { ids } = await from
      .openSequence()
      .generate(request(question(image, `Number ${'one '.repeat(i + 1)}`), wishes(i)), () => {});
    return Array.from(ids);
  };
  const alone: number[][] = [];
  for (let i = 0; i < 4; i++) alone.push(await withModel({ model, device }, (from) => ask(from, i)));
  assert.ok(new Set(alone.map(String)).size > 2, 'the answers differ among themselves');
  await withModel({ model, device, cacheLength: 1024 }, async (from) => {
    assert.equal(await Promise.all([0, 1, 2, 3].map((i) => ask(from, i))), alone);
  });
});

test('what is drawn on the device is what the CPU draws', async () => {
  const model = await models.model('tiny-llama2', 'f32');
  for (const wish of [
    { temperature: 1 },
    { temperature: 0.7, topK: 5, topP: 1 },
    { temperature: 2, topK: 0, topP: 0.5, minP: 0.05, repetitionPenalty: 1.3 },
  ]) {
    const draw = (on: string) =>
      withModel({ model, device: on, kvType: 'f32' }, async (from) =>
        Array.from(
          (
            await from
              .openSequence()
              .generate(request([{ token: '<s>' }, 'Once'], { maxTokens: 10, seed: 7, ...wish }), () => {})
          ).ids,
        ),
      );
    assert.equal(await draw(device), await draw('cpu'));
  }
});

test('an answer streams, stops at a text, and is aborted within a token', async () => {
  const model = await models.model('tiny-llama2', 'q8_0');
  await withModel({ model, device }, async (from) => {
    const prompt = [{ token: '<s>' }, 'Once'];
    const pieces: string[] = [];
    const sequence = from.openSequence();
    const whole = await sequence.generate(request(prompt, { maxTokens: 16 }), (text) => pieces.push(text));
    assert.is(pieces.join(''), whole.text);
    assert.ok(pieces.length > 1);
    const stop = whole.text.trim().slice(2, 4);
    const stopped = await sequence.generate(request(prompt, { maxTokens: 16, stop: [stop] }), () => {});
    assert.is(stopped.finishReason, 'stop');
    assert.ok(!stopped.text.includes(stop) && whole.text.startsWith(stopped.text));

    let tokens = 0;
    const running = sequence.generate(request(prompt, { maxTokens: 100 }), (_text, ids) => {
      tokens += ids.length;
      sequence.abort();
    });
    assert.is((await rejects('ERR_ABORTED', running)).code, 'ERR_ABORTED');
    assert.ok(tokens < 50, `${tokens} tokens after an abort at the first`);
    const again = await sequence.generate(request(prompt, { maxTokens: 16 }), () => {});
    assert.equal(again.ids, whole.ids);
  });
});

test('answers with lookup are those without it, alone and beside others', async () => {
  const model = await models.model('tiny-llama2', 'q8_0');
  const prompt = [{ token: '<s>' }, 'Once and again. Once and again.'];
  // a penalty below 1 rewards what was said already: the answers begin to repeat themselves, the last one not for long
  const wishes = [
    { repetitionPenalty: 0.5 },
    { repetitionPenalty: 0.8, temperature: 0.3, seed: 2 },
    { repetitionPenalty: 0.6, temperature: 1, topK: 4 },
  ];
  await withModel({ model, device, cacheLength: 1024 }, async (from) => {
    const ask = (wish: Partial<NativeGenerateRequest>, lookup: number) =>
      from.openSequence().generate(request(prompt, { maxTokens: 24, stopIds: [], ...wish, lookup }), () => {});
    const plain = [];
    for (const wish of wishes) plain.push(await ask(wish, 0));
    const alone = [];
    for (const wish of wishes) alone.push(await ask(wish, 5));
    const together = await Promise.all([...wishes.map((wish) => ask(wish, 16)), ...wishes.map((wish) => ask(wish, 0))]);
    const ids = (of: { ids: Int32Array }[]) => of.map((one) => Array.from(one.ids));
    assert.equal(ids(alone), ids(plain));
    assert.equal(ids(together), [...ids(plain), ...ids(plain)]);
    for (const some of [alone, together]) {
      const [accepted, guessed] = [0, 0].map((_, i) =>
        some.reduce((sum, one) => sum + (i === 0 ? one.acceptedTokens : one.guessedTokens), 0),
      );
      assert.ok(accepted! > 0 && guessed! > accepted!, `${accepted} of ${guessed} accepted`);
    }
  });
});

test('a prompt longer than a pass, and a full context', async () => {
  const model = await models.model('tiny-llama2', 'q8_0');
  const long = [{ ids: Int32Array.from({ length: 150 }, (_, i) => 3 + ((i * 7) % 500)) }];
  const run = (on: string) =>
    withModel({ model, device: on, kvType: 'f32', contextLength: 160 }, async (from) => {
      const result = await from.openSequence().generate(request(long, { maxTokens: 50, stopIds: [] }), () => {});
      const full = from.openSequence().generate(request([...long, ...long]), () => {});
      await rejects('ERR_CONTEXT_FULL', full);
      return { ids: Array.from(result.ids), reason: result.finishReason };
    });
  const found = await run(device);
  assert.is(found.reason, 'context');
  assert.equal(found, await run('cpu'));
});

test('memory is told by owner, and two models live side by side', async () => {
  const path = await models.model('tiny-llama2', 'f16');
  const first = await addon.loadModel({ model: path, device, contextLength: 64 });
  const second = await addon.loadModel({ model: path, device, contextLength: 64 });
  const owners = (from: NativeModel) => new Map(from.info().memory.map((one) => [one.owner, one.bytes]));
  const held = owners(first);
  for (const owner of ['llm weights', 'vit weights', 'kv cache']) assert.ok((held.get(owner) ?? 0) > 0, owner);
  assert.equal(owners(second).get('llm weights'), held.get('llm weights'));
  const { data, width, height } = gray();
  const answer = async (from: NativeModel) => {
    const image = await from.encodeImage(data, width, height);
    return Array.from((await from.openSequence().generate(request(question(image)), () => {})).ids);
  };
  const [one, two] = await Promise.all([answer(first), answer(second)]);
  assert.equal(one, two);
  await first.close();
  assert.equal(await answer(second), two);
  await second.close();
});

// ---- layers on both sides

test('layers on the GPU and on the CPU together give the same answer', async () => {
  const model = await models.model('tiny-gqa', 'q8_0');
  const answer = (options: Partial<Options>) =>
    withModel({ model, device, kvType: 'f32', ...options }, async (from) => {
      const { data, width, height } = scene();
      const image = await from.encodeImage(data, width, height);
      const result = await from.openSequence().generate(request(question(image)), () => {});
      const { gpuLayers, visionDevice, layers } = from.info();
      return { ids: Array.from(result.ids), gpuLayers, visionDevice, layers };
    });
  const whole = await answer({});
  assert.is(whole.gpuLayers, whole.layers);
  assert.is(whole.visionDevice, 'gpu');
  for (let gpuLayers = 0; gpuLayers < whole.layers; gpuLayers++) {
    const part = await answer({ gpuLayers });
    assert.is(part.gpuLayers, gpuLayers);
    assert.equal(part.ids, whole.ids);
  }
  const blind = await answer({ visionDevice: 'cpu' });
  assert.is(blind.visionDevice, 'cpu');
  assert.equal(blind.ids, whole.ids);
});

test('what does not fit is said before anything is loaded', async () => {
  const model = await models.model('tiny-llama2', 'f32');
  const told: number[] = [];
  const tight = addon.loadModel({
    model,
    device,
    gpuLayers: 2,
    gpuMemory: 100_000,
    onProgress: (fraction) => told.push(fraction),
  });
  const error = await rejects('ERR_OUT_OF_MEMORY', tight);
  assert.match(error.message, /2 layers .* need \d+ bytes of the GPU's memory, but 100000 of \d+/);
  assert.equal(told, []);
  // without a wish, what fits goes up, and that nothing does is an error
  const nothing = await rejects('ERR_OUT_OF_MEMORY', addon.loadModel({ model, device, gpuMemory: 100_000 }));
  assert.match(nothing.message, /its last layer .* needs \d+ bytes, the picture's side \d+; 100000 of \d+ free bytes/);
  const wishes = { model, device, gpuMemory: 100_000, gpuLayers: 0 };
  const { gpuLayers, visionDevice } = await withModel(wishes, async (from) => from.info());
  assert.equal([gpuLayers, visionDevice], [0, 'cpu']);
});

test('a cache of 8-bit keys and values is for layers on the CPU', async () => {
  const options = { model: await models.model('tiny-llama2', 'q8_0'), device, kvType: 'q8_0' } as const;
  const error = await rejects('ERR_UNSUPPORTED', addon.loadModel(options));
  assert.match(error.message, /kvType is q8_0, .*: expected f16 or f32 for layers on simt.*, or gpuLayers 0/);
  const { gpuLayers, visionDevice } = await withModel({ ...options, gpuLayers: 0 }, async (from) => from.info());
  assert.equal([gpuLayers, visionDevice], [0, 'gpu']);
});

test('what a model holds of the device right after loading is no more than it may', async () => {
  const model = await models.model('tiny-llama2', 'q8_0');
  const load = (more: Partial<Options>) =>
    withModel({ model, device, ...more }, async (from) => {
      const { memory, gpuLayers, visionDevice, layers } = from.info();
      const onDevice = memory.filter(({ owner }) => !owner.endsWith(' (CPU)'));
      const text = onDevice.map(({ owner, bytes }) => `${owner} ${bytes}`).join(', ');
      return { held: onDevice.reduce((sum, { bytes }) => sum + bytes, 0), text, gpuLayers, visionDevice, layers };
    });
  const whole = (await load({ imageBatch: 1 })).held;
  const seen = new Set<string>();
  for (const share of [0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1, 1.1, 1.5, 2, 4]) {
    const gpuMemory = Math.round(share * whole);
    const loaded = await load({ gpuMemory }).catch((error: unknown) => error);
    if (loaded instanceof MiniGptError) {
      assert.is(loaded.code, 'ERR_OUT_OF_MEMORY', loaded.message);
      assert.match(loaded.message, new RegExp(`\\b${gpuMemory}\\b`));
      seen.add('nothing');
      continue;
    }
    const { held, text, gpuLayers, visionDevice } = loaded as Awaited<ReturnType<typeof load>>;
    assert.ok(held <= gpuMemory, `${held} bytes are held, ${gpuMemory} may be: ${text}`);
    seen.add(`${gpuLayers} ${visionDevice}`);
  }
  // the limits tell something: a part of the model goes up, and all of it
  assert.ok(seen.has('2 gpu') && seen.size > 2, [...seen].join(', '));
});

test('a device that is not there, or that nobody knows', async () => {
  const model = await models.model('tiny-llama2', 'f32');
  const none = await rejects('ERR_NO_BACKEND', addon.loadModel({ model, device: device.replace(/:.*|$/, ':99') }));
  assert.match(none.message, /99/);
  await rejects('ERR_NO_BACKEND', addon.loadModel({ model, device: 'tpu' }));
});

// ---- training

test("losses, gradients and steps of AdamW are the CPU's", async () => {
  for (const type of ['f32', 'q8_0'] as const) {
    const model = await models.model('tiny-llama2', type);
    const train = (on: string) =>
      withModel({ model, device: on }, async (from) => {
        const trainer = await from.openTrainer();
        const batch = batchOf(from, 4);
        const { losses } = await trainer.accumulate(batch);
        const gradient = await trainer.gradient();
        const { gradientNorm } = await trainer.apply({ rate: 1e-3 });
        const after = await trainer.evaluate(batch);
        const { values } = await trainer.state();
        trainer.close();
        return { losses, gradient, gradientNorm, after: after.losses, values, info: from.info() };
      });
    const [found, expected] = [await train(device), await train('cpu')];
    const { gradient: allowed } = tolerance(found.info, type);
    assert.ok(relativeError(found.losses, expected.losses) < allowed, 'losses');
    assert.ok(relativeError(found.gradient.weight, expected.gradient.weight) < allowed, 'gradient of the weight');
    assert.ok(relativeError(found.gradient.bias, expected.gradient.bias) < allowed, 'gradient of the bias');
    assert.ok(Math.abs(found.gradientNorm / expected.gradientNorm - 1) < allowed, 'norm');
    assert.ok(relativeError(found.after, expected.after) < 2 * allowed, 'losses after a step');
    // the loss went down by more than the two differ
    const sum = (values: Float64Array) => values.reduce((a, b) => a + b, 0);
    assert.ok(sum(found.after) < sum(found.losses));
  }
});

test('a batch in parts is exactly the batch', async () => {
  const model = await models.model('tiny-llama2', 'q8_0');
  await withModel({ model, device }, async (from) => {
    const batch = batchOf(from, 3);
    const gradient = async (parts: NativeTrainingSample[][]) => {
      const trainer = await from.openTrainer();
      for (const part of parts) await trainer.accumulate(part);
      const sum = await trainer.gradient();
      trainer.close();
      return sum;
    };
    const whole = await gradient([batch]);
    const parts = await gradient([batch.slice(0, 1), batch.slice(1)]);
    assert.ok(Buffer.from(whole.weight.buffer).equals(Buffer.from(parts.weight.buffer)), 'every bit of the weight');
    assert.ok(Buffer.from(whole.bias.buffer).equals(Buffer.from(parts.bias.buffer)), 'every bit of the bias');
  });
});

function batchOf(model: NativeModel, count: number): NativeTrainingSample[] {
  const { imageTokens, projectionInput, bos, vocabulary } = model.info();
  const random = new Random(3);
  return Array.from({ length: count }, (_, i) => {
    const answer = Array.from({ length: 2 + i }, () => random.below(vocabulary));
    const ids = [bos, 7, ...new Array<number>(imageTokens).fill(-1), 9, ...answer.slice(0, -1)];
    const begin = ids.length - answer.length;
    return {
      ids: Int32Array.from(ids),
      targets: Int32Array.from(ids, (_id, t) => (t >= begin ? answer[t - begin]! : -1)),
      features: Float32Array.from({ length: imageTokens * projectionInput }, () => random.uniform() * 2 - 1),
    };
  });
}

test('an unknown wish is an error', async () => {
  const model = await models.model('tiny-llama2', 'f32');
  for (const options of [{ gpuLayers: 99 }, { gpuLayers: -1 }, { visionDevice: 'tpu' as 'cpu' }, { gpuMemory: 0 }])
    await rejects('ERR_ARGUMENT', (async () => addon.loadModel({ model, device, ...options }))());
});

test.run();
