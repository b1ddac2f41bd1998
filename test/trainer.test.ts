// The native trainer: a batch in parts is exactly the batch, states come back bit by bit, and what goes wrong leaves everything as it was.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  addon,
  type NativeModel,
  type NativeTrainer,
  type NativeTrainerOptions,
  type NativeTrainingSample,
} from '../lib/addon.js';
import { MiniGptError, type ErrorCode } from '../lib/errors.js';
import { Random } from '../lib/random.js';
import { tinyModel, type TinyModel } from './models.js';
import { rejects as rejectsWith } from './rejects.js';

const trainer = suite('trainer');
let tiny: TinyModel;
let model: NativeModel;

trainer.before(async () => {
  tiny = await tinyModel();
  model = await addon.loadModel({ model: tiny.path, threads: 2 });
});
trainer.after(async () => {
  await model.close();
  tiny.remove();
});

/** Samples with random pictures and answers of different lengths. */
function batchOf(count: number, seed = 1): NativeTrainingSample[] {
  const { imageTokens, projectionInput, bos, vocabulary } = model.info();
  const random = new Random(seed);
  return Array.from({ length: count }, (_, i) => {
    const answer = Array.from({ length: 2 + (i % 5) }, () => random.below(vocabulary));
    const ids = [bos, 7, ...new Array<number>(imageTokens).fill(-1), 9, ...answer.slice(0, -1)];
    const targets = ids.map((_id, t) =>
      t >= ids.length - answer.length ? answer[t - ids.length + answer.length]! : -1,
    );
    const features = Float32Array.from({ length: imageTokens * projectionInput }, () => random.uniform() * 2 - 1);
    return { ids: Int32Array.from(ids), targets: Int32Array.from(targets), features };
  });
}

async function rejects(promise: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  assert.match((await rejectsWith(code, promise)).message, message);
}

async function withTrainer<T>(
  body: (trainer: NativeTrainer) => Promise<T>,
  options?: NativeTrainerOptions,
): Promise<T> {
  const opened = await model.openTrainer(options);
  try {
    return await body(opened);
  } finally {
    opened.close();
  }
}

trainer('several calls are exactly one, whatever the passes and the threads', async () => {
  const batch = batchOf(7);
  const whole = await withTrainer(async (t) => {
    const loss = await t.accumulate(batch);
    return { loss, gradient: await t.gradient() };
  });
  assert.is(whole.loss.targets, 2 + 3 + 4 + 5 + 6 + 2 + 3, 'answers of 2, 3, 4, 5, 6, 2 and 3 ids');
  assert.is(whole.gradient.targets, whole.loss.targets);
  const norm = Math.hypot(...whole.gradient.weight);
  assert.ok(norm > 1e-3 && Number.isFinite(norm), `a gradient of norm ${norm}`);

  const parts = await withTrainer(async (t) => {
    const losses: number[] = [];
    for (const part of [batch.slice(0, 1), batch.slice(1, 4), [], batch.slice(4)])
      losses.push(...(await t.accumulate(part)).losses);
    return { losses, gradient: await t.gradient() };
  });
  assert.equal(parts.losses, Array.from(whole.loss.losses));
  assert.equal(parts.gradient, whole.gradient);

  // passes of one sample each, and another number of threads
  const narrow = await withTrainer(
    async (t) => {
      const loss = await t.accumulate(batch);
      return { loss, gradient: await t.gradient() };
    },
    { maxRows: 80 },
  );
  assert.equal(narrow, whole);
  const other = await addon.loadModel({ model: tiny.path, threads: 1 });
  try {
    const single = await other.openTrainer();
    await single.accumulate(batch);
    assert.equal(await single.gradient(), whole.gradient);
  } finally {
    await other.close();
  }
});

trainer('halfs are read as the numbers they stand for', async () => {
  const [sample] = batchOf(1);
  const rounded = sample!.features.map((_, i) => [0.5, -1.25, 3, 0][i % 4]!);
  const halfs = Uint16Array.from(rounded, (_, i) => [0x3800, 0xbd00, 0x4200, 0][i % 4]!);
  await withTrainer(async (t) => {
    const floats = await t.evaluate([{ ...sample!, features: Float32Array.from(rounded) }]);
    assert.equal(await t.evaluate([{ ...sample!, features: halfs }]), floats);
  });
});

trainer('evaluate gives the losses of accumulate and leaves the gradient alone', async () => {
  const batch = batchOf(3);
  await withTrainer(async (t) => {
    const loss = await t.accumulate(batch);
    const gradient = await t.gradient();
    assert.equal(await t.evaluate(batch), loss);
    assert.equal(await t.gradient(), gradient);
    await t.discardGradient();
    assert.ok((await t.gradient()).weight.every((value) => value === 0));
  });
});

trainer('rows before the first picture have a loss, and text alone no gradient', async () => {
  const [sample] = batchOf(1);
  const targets = sample!.targets.slice();
  targets[0] = 11; // of the row before the picture
  const text = { ids: Int32Array.of(1, 5, 6), targets: Int32Array.of(-1, 6, 2), features: new Float32Array(0) };
  await withTrainer(async (t) => {
    await t.accumulate([sample!]);
    const gradient = await t.gradient();
    await t.discardGradient();
    const loss = await t.accumulate([{ ...sample!, targets }, text]);
    assert.is(loss.targets, gradient.targets + 3);
    assert.ok(loss.losses[1]! > 0);
    assert.equal((await t.gradient()).weight, gradient.weight);
  });
});

trainer('a state goes on with the same bits, and steps lower the loss', async () => {
  const batch = batchOf(4);
  const run = async (t: NativeTrainer, steps: number) => {
    for (let i = 0; i < steps; i++) {
      await t.accumulate(batch);
      await t.apply({ rate: 2e-3, maxNorm: 1 });
    }
  };
  const { middle, end, first, last } = await withTrainer(async (t) => {
    const before = await t.evaluate(batch);
    await run(t, 3);
    const half = await t.state();
    await run(t, 3);
    return { middle: half, end: await t.state(), first: before.loss, last: (await t.evaluate(batch)).loss };
  });
  assert.is(middle.step, 3);
  assert.is(end.step, 6);
  assert.ok(last < first, `from ${first} to ${last}`);
  await withTrainer(async (t) => {
    await t.accumulate(batch.slice(1)); // what a restored state must not keep
    await t.restore(middle);
    await run(t, 3);
    assert.equal(await t.state(), end);
  });
});

trainer('a long gradient is shortened to the norm that was asked for', async () => {
  const batch = batchOf(2);
  await withTrainer(
    async (t) => {
      await t.accumulate(batch);
      const { weight, bias, targets } = await t.gradient();
      const norm = Math.sqrt([...weight, ...bias].reduce((sum, value) => sum + value * value, 0)) / targets;
      const free = await t.apply({ rate: 0 });
      assert.not.ok(free.clipped);
      assert.ok(Math.abs(free.gradientNorm - norm) < 1e-6 * norm, `${free.gradientNorm} beside ${norm}`);
      // the first moment after a first step is a tenth of the gradient that was used
      const { firstMoment: one } = await t.state();
      await t.restore({ ...(await t.state()), step: 0, firstMoment: zeros(one), secondMoment: zeros(one) });
      await t.accumulate(batch);
      const shortened = await t.apply({ rate: 0, maxNorm: norm / 4 });
      assert.ok(shortened.clipped);
      const { firstMoment: quarter } = await t.state();
      const worst = Math.max(...quarter.weight.map((value, i) => Math.abs(value - one.weight[i]! / 4)));
      // 1e-6 is added to the norm, as PyTorch does it
      assert.ok(worst < 1e-5 * Math.max(...one.weight.map(Math.abs)) + 1e-6 / norm, `off by ${worst}`);
    },
    { weightDecay: 0 },
  );
});

const zeros = (like: { weight: Float32Array; bias: Float32Array }) => ({
  weight: new Float32Array(like.weight.length),
  bias: new Float32Array(like.bias.length),
});

trainer('a projected picture is the picture that the model would see', async () => {
  const rgb = new Uint8Array(40 * 30 * 3).map((_, i) => (i * 37) % 256);
  const features = await model.encodeFeatures(rgb, 40, 30);
  await withTrainer(async (t) => {
    const image = await t.project(features);
    assert.is(image.tokens, model.info().imageTokens);
    assert.equal(image.toFloat32Array(), (await model.encodeImage(rgb, 40, 30)).toFloat32Array());
    await t.accumulate(batchOf(2));
    await t.apply({ rate: 0.1 });
    assert.not.equal((await t.project(features)).toFloat32Array(), image.toFloat32Array());
  });
});

trainer('what does not fit is refused by name, and nothing has changed', async () => {
  const [good] = batchOf(1);
  const { vocabulary } = model.info();
  await withTrainer(
    async (t) => {
      await t.accumulate([good!]);
      const before = await t.gradient();
      const one = (change: Partial<NativeTrainingSample>) => t.accumulate([good!, { ...good!, ...change }]);
      const length = good!.ids.length;
      await rejects(one({ targets: good!.targets.slice(1) }), 'ERR_ARGUMENT', /sample 1: .*targets/);
      await rejects(
        one({ ids: good!.ids.map((id) => (id === 7 ? vocabulary : id)) }),
        'ERR_ARGUMENT',
        /sample 1, row 1/,
      );
      await rejects(one({ features: good!.features.slice(1) }), 'ERR_ARGUMENT', /feature values/);
      await rejects(
        one({ ids: new Int32Array(101).fill(3), targets: new Int32Array(101).fill(3), features: new Float32Array(0) }),
        'ERR_ARGUMENT',
        /101 rows, expected at most 100/,
      );
      await rejects(one({ ids: new Int32Array(0), targets: new Int32Array(0) }), 'ERR_ARGUMENT', /one at least/);
      assert.ok(length < 100);
      assert.equal(await t.gradient(), before);
      await rejects(t.apply({ rate: NaN }), 'ERR_ARGUMENT', /learning rate/);
      await rejects(t.apply({ rate: 1, maxNorm: -1 }), 'ERR_ARGUMENT', /norm/);
      await t.setGradient({ ...before, weight: before.weight.fill(NaN, 0, 1) });
      const state = await t.state();
      await rejects(t.apply({ rate: 1 }), 'ERR_NAN_LOSS', /step 1/);
      assert.equal(await t.state(), state);
      await t.discardGradient();
      await rejects(t.apply({ rate: 1 }), 'ERR_ARGUMENT', /no gradient/);
      await rejects(
        t.restore({ ...state, values: { ...state.values, bias: new Float32Array(3) } }),
        'ERR_SHAPE',
        /3 biases/,
      );
      await rejects(t.project(new Float32Array(5)), 'ERR_SHAPE', /features/);
    },
    { maxRows: 100 },
  );
  await rejects(model.openTrainer({ beta1: 1 }), 'ERR_ARGUMENT', /beta1/);
  assert.throws(
    () => model.openTrainer({ maxRows: 0 }),
    (error: unknown) => error instanceof MiniGptError && error.code === 'ERR_ARGUMENT' && /maxRows/.test(error.message),
  );
});

trainer('an abort ends what runs, the gradient is as before, and the next call works', async () => {
  const batch = batchOf(40);
  await withTrainer(
    async (t) => {
      await t.accumulate(batch.slice(0, 2));
      const before = await t.gradient();
      const both = [t.accumulate(batch), t.evaluate(batch)].map((call) => rejects(call, 'ERR_ABORTED', /aborted/));
      setTimeout(() => t.abort(), 5);
      await Promise.all(both);
      assert.equal(await t.gradient(), before);
      assert.is((await t.accumulate(batch.slice(2, 3))).targets, 4);
    },
    { maxRows: 100 },
  );
});

trainer('a closed trainer and a closed model say so; closing frees the memory', async () => {
  const other = await addon.loadModel({ model: tiny.path });
  const held = () => other.info().memory.find(({ owner }) => owner === 'training')?.bytes ?? 0;
  const closed = await other.openTrainer();
  assert.ok(held() > 0);
  closed.close();
  closed.close();
  await rejects(
    Promise.resolve().then(() => closed.state()),
    'ERR_CLOSED',
    /trainer/,
  );
  const open = await other.openTrainer({ maxRows: 256 });
  const one = held();
  open.close();
  const last = await other.openTrainer({ maxRows: 256 }); // after the closing in the engine's order
  assert.is(held(), one);
  const running = rejects(last.accumulate(batchOf(30)), 'ERR_CLOSED', /closed/);
  await other.close();
  await running;
  await rejects(
    Promise.resolve().then(() => last.gradient()),
    'ERR_CLOSED',
    /closed/,
  );
  last.close();
});

trainer('a language model alone has nothing to train', async () => {
  const alone = await addon.loadModel({ llm: tiny.path });
  try {
    assert.is(alone.info().projectionInput, 0);
    await rejects(alone.openTrainer(), 'ERR_ARGUMENT', /language model alone/);
  } finally {
    await alone.close();
  }
});

trainer.run();
