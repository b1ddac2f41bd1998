// Pictures that wait are encoded together: with the same bits as alone, on the CPU and on the device, whatever becomes of the others; how many
// at once is decided before loading, by memory; and answers go on meanwhile.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon, type NativeImage, type NativeModel } from '../lib/addon.js';
import type { LoadedPair } from '../lib/data/pair.js';
import { FeatureSource } from '../lib/train/features.js';
import {
  device,
  deviceModels,
  request,
  withModel as withShort,
  type DeviceModels,
  type Options,
} from './device-models.js';
import { rejects } from './rejects.js';

const test = suite(`image batch on cpu and ${device}`);
let models: DeviceModels;

test.before(() => {
  models = deviceModels();
});
test.after(() => models.remove());

const withModel = <T>(options: Options, body: (model: NativeModel) => Promise<T>) =>
  withShort({ contextLength: 512, ...options }, body);

const side = 56;
/** Pictures that differ. */
const rgb = (i: number) => Uint8Array.from({ length: side * side * 3 }, (_, at) => (at * (i + 3) + 31 * i) % 251);
const encode = (model: NativeModel, i: number, onBegin?: (abort: () => void) => void): Promise<NativeImage> =>
  model.encodeImage(rgb(i), side, side, onBegin);
const bits = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

/** What `ask` asks for while the engine is at something else, so that it waits and goes together. */
async function meanwhile<T>(model: NativeModel, ask: () => Promise<T>): Promise<T> {
  const rows = model.info().contextLength;
  const busy = model.tracePrompt([{ ids: new Int32Array(rows).fill(5) }]);
  const [asked] = await Promise.all([ask(), busy]);
  return asked;
}

/** Sizes of the passes that pictures were in: all of a pass have the same time, to the last bit. */
function passes(images: readonly NativeImage[]): number[] {
  const times = new Map<number, number>();
  for (const { encodeMs } of images) times.set(encodeMs, (times.get(encodeMs) ?? 0) + 1);
  return [...times.values()];
}

test('the time of the ViT is a part of the time of its pass', async () => {
  const options = { model: await models.model('tiny-llama2', 'q8_0'), device: 'cpu', imageBatch: 2 };
  await withModel(options, async (model) => {
    const images = await meanwhile(model, () => Promise.all([encode(model, 0), encode(model, 1)]));
    for (const { encodeMs, vitMs } of images) assert.ok(vitMs! > 0 && vitMs! < encodeMs, `${vitMs} of ${encodeMs} ms`);
    assert.is(images[0].vitMs, images[1].vitMs);
  });
});

for (const [name, type, on, contextLength] of [
  ['tiny-llama2', 'f32', 'cpu', 2048],
  ['tiny-llama2', 'q8_0', 'cpu', 2048],
  ['tiny-gqa', 'f16', 'cpu', 2048],
  ['tiny-llama2', 'f16', device, 128],
  ['tiny-llama2', 'q4_0', device, 128],
  ['tiny-gqa', 'f32', device, 128],
  ['tiny-gqa', 'q8_0', device, 128],
] as const) {
  test(`a picture alone and among others, bit for bit: ${name} ${type} on ${on}`, async () => {
    const options = { model: await models.model(name, type), device: on, contextLength };
    const count = 5;
    const all = Array.from({ length: count }, (_, i) => i);
    const alone = await withModel({ ...options, imageBatch: 1 }, async (model) => {
      const images: Buffer[] = [];
      const features: Buffer[] = [];
      for (const i of all) {
        images.push(bits((await encode(model, i)).toFloat32Array()));
        features.push(bits(await model.encodeFeatures(rgb(i), side, side)));
      }
      return { images, features };
    });
    assert.is(new Set(alone.images.map((one) => one.toString('hex'))).size, count, 'the pictures differ');
    await withModel({ ...options, imageBatch: 2 * count }, async (model) => {
      assert.is(model.info().imageBatch, 2 * count);
      const [images, features] = await meanwhile(model, () =>
        Promise.all([
          Promise.all(all.map((i) => encode(model, i))),
          Promise.all(all.map((i) => model.encodeFeatures(rgb(i), side, side))),
        ]),
      );
      assert.equal(passes(images), [count], 'all were in one pass');
      for (const i of all) {
        assert.ok(bits(images[i]!.toFloat32Array()).equals(alone.images[i]!), `picture ${i}`);
        assert.ok(bits(features[i]!).equals(alone.features[i]!), `features of picture ${i}`);
      }
    });
  });
}

test('more pictures than go together take several passes, and one alone is not waited for', async () => {
  await withModel(
    { model: await models.model('tiny-llama2', 'f32'), imageBatch: 3, contextLength: 2048 },
    async (model) => {
      const images = await meanwhile(model, () => Promise.all([0, 1, 2, 3, 4, 5, 6].map((i) => encode(model, i))));
      // pictures are prepared side by side: which of them comes last is open
      assert.equal(
        passes(images).sort((a, b) => b - a),
        [3, 3, 1],
      );
      assert.equal(passes([await encode(model, 0)]), [1]);
    },
  );
});

test('who is aborted leaves the others as they are', async () => {
  for (const imageBatch of [1, 4]) {
    const options = { model: await models.model('tiny-llama2', 'f32'), imageBatch, contextLength: 2048 };
    await withModel(options, async (model) => {
      const expected = bits((await encode(model, 1)).toFloat32Array());
      await meanwhile(model, async () => {
        const aborts: (() => void)[] = [];
        const images = [0, 1, 2, 3, 4].map((i) => encode(model, i, (abort) => aborts.push(abort)));
        for (const i of [0, 2, 3]) aborts[i]!();
        await Promise.all([0, 2, 3].map((i) => rejects('ERR_ABORTED', images[i]!)));
        assert.ok(bits((await images[1]!).toFloat32Array()).equals(expected));
        // the aborted ones took no place of the pass
        assert.equal(passes([await images[1]!, await images[4]!]), imageBatch === 1 ? [1, 1] : [2]);
        aborts[1]!(); // too late, and harmless
      });
    });
  }
});

test('closing refuses what waits', async () => {
  const model = await addon.loadModel({
    model: await models.model('tiny-llama2', 'f32'),
    imageBatch: 2,
    contextLength: 2048,
  });
  const busy = model.tracePrompt([{ ids: new Int32Array(2048).fill(5) }]).catch(() => {});
  const images = [0, 1, 2, 3, 4, 5].map((i) => encode(model, i));
  const refused = images.map((image) => rejects('ERR_CLOSED', image));
  await model.close();
  await busy;
  await Promise.all(refused);
});

test('answers go on between the passes', async () => {
  const options = { model: await models.model('tiny-llama2', 'f32'), imageBatch: 32, contextLength: 2048 };
  await withModel(options, async (model) => {
    const sequence = model.openSequence();
    let tokens = 0;
    let begun = () => {};
    const first = new Promise<void>((resolve) => (begun = resolve));
    const answer = sequence.generate(
      request([{ token: '<s>' }, 'Once'], { maxTokens: 2000, stopIds: [] }),
      (_text, ids) => {
        tokens += ids.length;
        begun();
      },
    );
    answer.catch(() => {}); // where the test fails before it looks
    await first;
    const before = tokens;
    const images: NativeImage[] = []; // as they come: pictures are prepared side by side, and any may be the first
    const note = async (image: Promise<NativeImage>) => images.push(await image);
    await Promise.all(Array.from({ length: 60 }, (_, i) => note(encode(model, i))));
    const each = passes(images);
    assert.is(each[0], 1, 'while nothing is known of what a pass takes, one picture');
    assert.ok(tokens - before >= each.length - 1, `${tokens - before} tokens during ${each.length} passes`);
    sequence.abort();
    await rejects('ERR_ABORTED', answer);
  });
});

test('training asks for all pictures of a batch at once, and leaves out what is known', async () => {
  let running = 0;
  let most = 0;
  const model = {
    encodeFeatures: async (pixels: Uint8Array) => {
      most = Math.max(most, ++running);
      await new Promise((resume) => setTimeout(resume, 5));
      running--;
      return Float32Array.of(pixels[0]!);
    },
  };
  const pairs = Array.from({ length: 40 }, (_, i): LoadedPair => ({
    dataset: 'some',
    name: `pair ${i}`,
    key: `${i}`,
    turns: [{ answer: 'A picture.' }],
    ...(i === 7 ? { features: Float32Array.of(-1) } : { pixels: { data: Uint8Array.of(i), width: 1, height: 1 } }),
  }));
  const features = await new FeatureSource(model, 'f32').ofPairs(pairs);
  assert.is(most, 39);
  assert.equal(
    features.map(([first]) => first),
    pairs.map((_, i) => (i === 7 ? -1 : i)),
  );
});

// ---- how many at once

test('on the CPU one at a time unless told otherwise, on a device as many as its memory holds', async () => {
  const model = await models.model('tiny-gqa', 'q8_0');
  const batch = (options: Partial<Options>) => withModel({ model, ...options }, async (from) => from.info().imageBatch);
  assert.is(await batch({ device: 'cpu' }), 1);
  assert.is(await batch({ device: 'cpu', imageBatch: 7 }), 7);
  assert.is(await batch({ device, visionDevice: 'cpu' }), 1);
  assert.is(await batch({ device, imageBatch: 2 }), 2);
  assert.is(await batch({ device }), 32);
  for (const imageBatch of [0, 33, 1.5, -1])
    await rejects('ERR_ARGUMENT', (async () => addon.loadModel({ model, imageBatch }))());
});

test('the plan counts what pictures take', async () => {
  const options = { model: await models.model('tiny-llama2', 'f16'), device, contextLength: 64 };
  const taken = (model: NativeModel) => model.info().memory.reduce((sum, { peak }) => sum + peak, 0);
  const six = await withModel({ ...options, imageBatch: 6 }, async (model) => taken(model));
  // as much as six take, and what a pass may still ask for
  const gpuMemory = Math.ceil(six * 1.25);
  const error = await rejects('ERR_OUT_OF_MEMORY', addon.loadModel({ ...options, imageBatch: 32, gpuMemory }));
  const words =
    /with 32 pictures at once needs (\d+) bytes .* but (\d+) are left: (\d+) at once fit \(imageBatch\)/.exec(
      error.message,
    );
  assert.ok(words, error.message);
  const fit = Number(words[3]);
  assert.ok(fit >= 1 && fit < 32, error.message);
  await rejects('ERR_OUT_OF_MEMORY', addon.loadModel({ ...options, imageBatch: fit + 1, gpuMemory }));
  await withModel({ ...options, imageBatch: fit, gpuMemory }, async (model) => {
    const images = await meanwhile(model, () => Promise.all(Array.from({ length: fit }, (_, i) => encode(model, i))));
    assert.equal(passes(images), [fit]);
    assert.ok(taken(model) <= gpuMemory, `${taken(model)} bytes of ${gpuMemory}`);
  });
  // without a wish, room is left for a trainer
  const own = await withModel({ ...options, gpuMemory }, async (model) => model.info().imageBatch);
  assert.ok(own >= 1 && own < fit, `${own} of ${fit}`);
});

test.run();
