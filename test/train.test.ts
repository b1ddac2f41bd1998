// Training as a whole: the reference's losses, the same numbers whatever stops the run on the way, and what ends it in words.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { MiniGptError } from '../lib/errors.js';
import { writePth } from '../lib/formats/pth-writer.js';
import { Random } from '../lib/random.js';
import { readCheckpoint, writeCheckpoint } from '../lib/train/checkpoint.js';
import type { TrainSections } from '../lib/train/config.js';
import type { StepEvent, TrainEvent, ValidationEvent } from '../lib/train/events.js';
import { gatherTexts } from '../lib/train/gather.js';
import type { ProcessGroup } from '../lib/train/group.js';
import { alone } from '../lib/train/group.js';
import { TrainingLoop } from '../lib/train/loop.js';
import { prepare } from '../lib/train/prepare.js';
import { checkpointName, point } from '../lib/train/run-folder.js';
import { train, type TrainOptions } from '../lib/train/train.js';
import { minigpt4, script, type RunOptions } from './command.js';
import { device } from './device-models.js';
import { fixture, tinyModel, type TinyModel } from './models.js';
import { rejects } from './rejects.js';

const test = suite('train');
let tiny: TinyModel;
const at = (...names: string[]) => join(tiny.folder, ...names);
/** A folder that nobody else has. */
const fresh = () => mkdtempSync(at('run-'));

const captions = ['a dog', 'two cats on a mat', 'the sea', 'a red house', 'rain', 'a tall tree stands here', 'snow'];

test.before(async () => {
  tiny = await tinyModel();
  const random = new Random('pictures');
  const lines: string[] = [];
  for (const [i, caption] of captions.entries()) {
    const data = Uint8Array.from({ length: 8 * 8 * 3 }, () => random.below(256));
    await sharp(data, { raw: { width: 8, height: 8, channels: 3 } })
      .png()
      .toFile(at(`${i}.png`));
    lines.push(JSON.stringify({ path: `${i}.png`, caption }));
  }
  writeFileSync(at('pairs.jsonl'), `${lines.join('\n')}\n`);
  writeFileSync(at('prompts.txt'), '<Img><ImageHere></Img> Describe this.\n<Img><ImageHere></Img> What is it?\n');
});
test.after(() => tiny.remove());

type Changes = { model?: object; data?: object; info?: object; run?: object };

/** Five steps of stage 2 with two prompts, on batches of two out of seven pairs. */
function sections({ model, data, info, run }: Changes = {}): TrainSections {
  return {
    model: {
      path: tiny.path,
      prompt_path: at('prompts.txt'),
      prompt_template: '###Human: {} ###Assistant: ',
      end_sym: '###',
      ...model,
    },
    datasets: { pairs: { batch_size: 2, build_info: { storage: at('pairs.jsonl'), ...info }, ...data } },
    run: {
      ...{ init_lr: 0.01, min_lr: 0.001, warmup_lr: 0.0001, warmup_steps: 2 },
      ...{ max_epoch: 1, iters_per_epoch: 5, output_dir: at('output'), threads: 1, checkpoint_every: 1, keep: 9 },
      ...run,
    },
  };
}

interface Trained {
  events: TrainEvent[];
  steps: StepEvent[];
  folder: string;
}

/** A run to its end, in a folder of its own. `seen`: told each event as it comes. */
async function trained(
  config: TrainSections,
  options: TrainOptions = {},
  seen: (event: TrainEvent) => void = () => {},
): Promise<Trained> {
  const folder = options.output ?? fresh();
  const events: TrainEvent[] = [];
  for await (const event of train(config, { output: folder, ...options })) {
    events.push(event);
    seen(event);
  }
  return { events, steps: events.filter((event) => event.kind === 'step'), folder };
}

/** The numbers and the positions of a checkpoint: what has to be the same to the bit. */
async function stateOf(folder: string, step: number) {
  const { trainer, state } = await readCheckpoint(join(folder, checkpointName(step)));
  return { trainer, ranks: state.ranks, losses: state.losses };
}

let uninterrupted: Promise<Trained> | undefined;
/** The run that interrupted ones are compared with. */
const whole = () => (uninterrupted ??= trained(sections()));

interface Batch {
  answers: string[];
  end_sym: string;
  losses: number[];
  learning_rates: number[];
}

for (const [stage, changes] of Object.entries({
  stage1: { max_txt_len: 32 },
  stage2: { max_txt_len: 160, prompt_path: 'one.txt', prompt_template: '###Human: {} ###Assistant: ' },
})) {
  test(`${stage} has the losses and the rates of the reference`, async () => {
    const expected = JSON.parse(readFileSync(fixture('expected.json'), 'utf8')) as Record<string, Batch>;
    const { answers, end_sym, losses, learning_rates } = expected[stage]!;
    const pictures = readdirSync(fixture('images')).map((name) => fixture(`images/${name}`));
    // the reference lays its pictures out in the order it made them
    pictures.sort((a, b) => order(a) - order(b));
    const list = at(`${stage}.jsonl`);
    writeFileSync(list, answers.map((caption, i) => JSON.stringify({ path: pictures[i], caption })).join('\n'));
    writeFileSync(at('one.txt'), '<Img><ImageHere></Img> Describe this image in detail.\n');
    const model = { path: tiny.path, end_sym, ckpt: fixture('pretrained_minigpt4.pth'), ...changes };
    if ('prompt_path' in model) model.prompt_path = at(String(model.prompt_path));
    const base = sections({ run: { warmup_steps: 3, iters_per_epoch: 12, feature_type: 'f32', checkpoint_every: 99 } });
    const { steps } = await trained({
      ...base,
      model,
      datasets: { pairs: { batch_size: 3, build_info: { storage: list } } },
    });
    for (const [i, loss] of losses.entries()) {
      // the bound set for float32 training; sums in another order leave about 1e-7 here
      assert.ok(Math.abs(steps[i]!.loss / loss - 1) < 2e-4, `step ${i + 1}: expected ${loss}, found ${steps[i]!.loss}`);
      assert.ok(Math.abs(steps[i]!.rate / learning_rates[i]! - 1) < 1e-12);
    }
  });
}
const order = (path: string) => ['scene.png', 'gray.png', 'small.png'].findIndex((name) => path.endsWith(name));

test('tells every step, and keeps what the run is', async () => {
  const { steps, events, folder } = await whole();
  assert.equal(
    steps.map(({ step, steps: of, epoch, pairs, dataset }) => [step, of, epoch, pairs, dataset]),
    [1, 2, 3, 4, 5].map((step) => [step, 5, 1, 2, 'pairs']),
  );
  assert.ok(steps.every(({ loss, gradientNorm, seconds }) => loss > 1 && gradientNorm > 0 && seconds > 0));
  assert.is(steps[4]!.eta, 0);
  const mean = steps.reduce((sum, { loss }) => sum + loss, 0) / 5;
  assert.ok(Math.abs(steps[4]!.runningLoss / mean - 1) < 1e-12);
  assert.is(events.filter(({ kind }) => kind === 'checkpoint').length, 5);
  assert.is(readFileSync(join(folder, 'latest'), 'utf8'), 'checkpoint-000005.safetensors\n');
  const kept = parse(readFileSync(join(folder, 'config.yaml'), 'utf8')) as TrainSections;
  assert.is(kept.run['seed'], 42);
  // what is kept is a configuration again
  const again = await trained(kept);
  assert.equal(await stateOf(again.folder, 5), await stateOf(folder, 5));
});

test('goes on from every step with the same bits', async () => {
  const { folder, steps } = await whole();
  for (const step of [1, 2, 3, 4]) {
    const copy = fresh();
    cpSync(join(folder, checkpointName(step)), join(copy, checkpointName(step)));
    const rest = await trained(sections(), { output: copy, resume: copy });
    assert.equal(
      rest.steps.map(({ step: at, loss, runningLoss }) => [at, loss, runningLoss]),
      steps.slice(step).map(({ step: at, loss, runningLoss }) => [at, loss, runningLoss]),
    );
    assert.equal(await stateOf(copy, 5), await stateOf(folder, 5));
  }
});

test('a process that is killed at any moment is gone on with, with the same bits', async () => {
  const { folder } = await whole();
  const random = new Random('kill', process.pid, Date.now()); // another moment each time: none may matter
  const run = fresh();
  for (let turn = 0; !existsSync(join(run, checkpointName(5))); turn++) {
    assert.ok(turn < 9, 'it comes to an end');
    const done = readdirSync(run).flatMap((name) => /^checkpoint-(\d+)\.safetensors$/.exec(name)?.[1] ?? []);
    const resume = done.length > 0;
    const words = `
      const { train } = await import(lib + 'train/train.ts');
      const run = train(${JSON.stringify(sections())}, ${JSON.stringify({ output: run, ...(resume ? { resume: run } : {}) })});
      for await (const { kind, step } of run) console.log(kind + step);`;
    // after some step, and a part of the next one, or while its checkpoint is written
    const kind = random.below(2) ? 'step' : 'checkpoint';
    const step = Math.max(0, ...done.map(Number)) + 1;
    const delay = random.below(8);
    const ended = await script(words, {
      onOutput: (stdout, child) => {
        if (turn < 3 && stdout.includes(`${kind}${step}\n`)) setTimeout(() => child.kill('SIGKILL'), delay);
      },
    });
    assert.ok(ended.code === 0 || ended.signal === 'SIGKILL', ended.stderr);
  }
  assert.equal(await stateOf(run, 5), await stateOf(folder, 5));
  assert.not.ok(readdirSync(run).some((name) => name.includes('.part-')));
});

test('an abort leaves a checkpoint of the last whole step', async () => {
  const { folder } = await whole();
  const controller = new AbortController();
  const run = fresh();
  const events: TrainEvent[] = [];
  const config = sections({ run: { checkpoint_every: 99 } });
  const error = await rejects(
    'ERR_ABORTED',
    trained(config, { output: run, signal: controller.signal }, (event) => {
      events.push(event);
      if (event.kind === 'step' && event.step === 2) controller.abort();
    }),
  );
  const path = join(run, checkpointName(2));
  assert.ok(error.message.includes(`the state after step 2 is in ${path}`), error.message);
  assert.equal(events.at(-1), { kind: 'checkpoint', step: 2, path });
  assert.equal(await stateOf(run, 2), await stateOf(folder, 2));
  const rest = await trained(config, { output: run, resume: true });
  assert.equal(await stateOf(run, 5), await stateOf(folder, 5));
  assert.is(rest.steps.length, 3);
  // before anything has begun
  await rejects('ERR_ABORTED', trained(config, { signal: AbortSignal.abort() }));
});

test('a loop that is left early leaves a checkpoint too', async () => {
  const { folder } = await whole();
  const run = fresh();
  for await (const event of train(sections({ run: { checkpoint_every: 99 } }), { output: run }))
    if (event.kind === 'step' && event.step === 3) break;
  assert.equal(await stateOf(run, 3), await stateOf(folder, 3));
});

test('a loss that is no number ends the run with the names of its pairs and a checkpoint from before', async () => {
  const run = fresh();
  // a rate that throws the weights beyond what float32 can multiply
  const config = sections({ run: { init_lr: 1e30, warmup_steps: 0, checkpoint_every: 99 } });
  const seen: TrainEvent[] = [];
  const error = await rejects(
    'ERR_NAN_LOSS',
    trained(config, { output: run }, (event) => seen.push(event)),
  );
  const last = seen.filter((event) => event.kind === 'step').at(-1)!;
  assert.match(error.message, new RegExp(`^step ${last.step + 1}: .*its pairs: .*pairs`));
  assert.ok(error.message.includes(join(run, checkpointName(last.step))), error.message);
  assert.is((await readCheckpoint(join(run, checkpointName(last.step)))).state.step, last.step);
});

test('a projection of another width, or with numbers that are none, is refused by name', async () => {
  const other = fixture('../tiny-gqa/pretrained_minigpt4.pth');
  const { message } = await rejects('ERR_SHAPE', trained(sections({ model: { ckpt: other } })));
  assert.ok(message.includes(other) && /leads from \d+ to \d+ numbers; expected \d+ to \d+/.test(message), message);
  const { input, output } = await readCheckpoint(join((await whole()).folder, checkpointName(1)));
  const weight = new Float32Array(output * input).fill(0.01);
  weight[5] = NaN;
  await writePth(at('nan.pth'), 'model', [
    { name: 'llama_proj.weight', shape: [output, input], values: weight },
    { name: 'llama_proj.bias', shape: [output], values: new Float32Array(output) },
  ]);
  const bad = await rejects('ERR_FILE_FORMAT', trained(sections({ model: { ckpt: at('nan.pth') } })));
  assert.match(bad.message, /nan\.pth: the projection's weight holds NaN; expected finite numbers$/);
});

test('a run begins from another, from the model, or from nothing', async () => {
  const { folder } = await whole();
  const before = await readCheckpoint(join(folder, checkpointName(5)));
  const still = { run: { init_lr: 0, min_lr: 0, warmup_lr: 0, iters_per_epoch: 1 } }; // nothing changes
  const start = async (model: object) =>
    (await stateOf((await trained(sections({ ...still, model }))).folder, 1)).trainer.values;
  assert.equal(await start({ ckpt: folder }), before.trainer.values, 'the latest of a folder');
  const third = await readCheckpoint(join(folder, checkpointName(3)));
  assert.equal(await start({ ckpt: join(folder, checkpointName(3)) }), third.trainer.values);
  assert.equal(await start({ init: 'model' }), await start({ ckpt: fixture('pretrained_minigpt4.pth') }));
  // nn.Linear's own start: uniform in ±1/√inputs, so of variance bound²/3
  const born = await start({});
  const bound = 1 / Math.sqrt(before.input);
  assert.ok(
    born.weight.every((value) => Math.abs(value) <= bound) && born.bias.every((value) => Math.abs(value) <= bound),
  );
  const variance = born.weight.reduce((sum, value) => sum + value * value, 0) / born.weight.length;
  // the mean of n squares of such numbers strays by bound²·√(4/45/n): n is some thousands, five times that is below 10 %
  assert.ok(Math.abs(variance / (bound ** 2 / 3) - 1) < 0.1, `variance ${variance} for the bound ${bound}`);
});

test('a checkpoint of other data or another model is not gone on with', async () => {
  const { folder } = await whole();
  const refused = async (changes: Changes, message: RegExp) => {
    const copy = fresh();
    cpSync(join(folder, checkpointName(2)), join(copy, checkpointName(2)));
    assert.match(
      (await rejects('ERR_ARGUMENT', trained(sections(changes), { output: copy, resume: copy }))).message,
      message,
    );
  };
  await refused({ data: { batch_size: 3 } }, /its data was another: datasets\.pairs\.batch_size was 2, is 3$/);
  await refused({ run: { seed: 43 } }, /its data was another: run\.seed was 42, is 43$/);
  await refused({ model: { end_sym: '\n' } }, /its data was another: model\.end_sym was "###", is "\\n"$/);
  await refused({ run: { iters_per_epoch: 1 } }, /it has 2 steps, the configuration has 1 in all$/);
  const changed = at('changed.gguf');
  const bytes = readFileSync(tiny.path);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(changed, bytes);
  await refused(
    { model: { path: changed } },
    /it was trained with another model: expected tiny\.gguf .*, found changed/,
  );
  // what else has changed is told, and holds from here on
  const copy = fresh();
  cpSync(join(folder, checkpointName(4)), join(copy, checkpointName(4)));
  const run = train(sections({ run: { max_grad_norm: 1 } }), { output: copy, resume: copy });
  const { notices, startStep } = await run.facts();
  assert.equal([notices, startStep], [['changed since the checkpoint: run.max_grad_norm: 0 is now 1'], 4]);
  await run.close();
  await rejects('ERR_FILE_NOT_FOUND', trained(sections(), { resume: fresh() }));
});

test('a checkpoint that cannot be written ends the run, and the one before survives', async () => {
  const { folder } = await whole();
  const run = fresh();
  // a folder in its place
  mkdirSync(join(run, checkpointName(3), 'x'), { recursive: true });
  const copy = join(run, checkpointName(2));
  cpSync(join(folder, checkpointName(2)), copy);
  await point(run, 'latest', 2);
  const error = await rejects('ERR_FILE_NOT_FOUND', trained(sections(), { output: run, resume: run }));
  assert.match(error.message, /checkpoint-000003\.safetensors is a directory/);
  assert.is(readFileSync(join(run, 'latest'), 'utf8'), 'checkpoint-000002.safetensors\n');
  assert.equal(readFileSync(copy), readFileSync(join(folder, checkpointName(2))));
});

test('the cache of features changes no number', async () => {
  const { steps } = await whole();
  const losses = (of: StepEvent[]) => of.map(({ loss, gradientNorm }) => [loss, gradientNorm]);
  const config = sections({ run: { feature_cache: at('features') } });
  const cold = await trained(config);
  assert.equal(losses(cold.steps), losses(steps));
  const files = readdirSync(at('features'), { recursive: true, encoding: 'utf8' });
  assert.ok(files.some((name) => name.endsWith('.features')));
  const warm = await trained(config);
  assert.equal(losses(warm.steps), losses(steps));
  // rounding is what feature_type says, not what the cache does
  const exact = await trained(sections({ run: { feature_type: 'f32' } }));
  assert.not.equal(losses(exact.steps), losses(steps));
  assert.ok(exact.steps.every(({ loss }, i) => Math.abs(loss / steps[i]!.loss - 1) < 1e-2));
});

test('batches that are accumulated are one larger batch', async () => {
  // two pairs in all: whatever the order, both are in the step
  const info = { storage: at('two.jsonl') };
  writeFileSync(at('two.jsonl'), readFileSync(at('pairs.jsonl'), 'utf8').split('\n').slice(0, 2).join('\n'));
  const model = { prompt_path: at('single.txt') };
  writeFileSync(at('single.txt'), '<Img><ImageHere></Img> Describe this.\n');
  const run = { warmup_steps: 0, min_lr: 0.01 };
  const one = await trained(sections({ model, info, run: { ...run, iters_per_epoch: 2 } }));
  const two = await trained(
    sections({ model, info, data: { batch_size: 1 }, run: { ...run, iters_per_epoch: 4, accum_grad_iters: 2 } }),
  );
  assert.is(two.steps.length, 2);
  for (const [i, { loss, gradientNorm, pairs }] of two.steps.entries()) {
    // another order of the two in a sum of float32 leaves a few units of its last place, 6e-8
    assert.ok(Math.abs(loss / one.steps[i]!.loss - 1) < 1e-6);
    assert.ok(Math.abs(gradientNorm / one.steps[i]!.gradientNorm - 1) < 1e-5);
    assert.is(pairs, 2);
  }
});

test('validates on pairs that are kept back, and answers about fixed pictures', async () => {
  const run = { iters_per_epoch: 6, valid_every: 2, checkpoint_every: 6, keep: 1, init_lr: 0.02 };
  const answers = [at('0.png'), { picture: at('1.png'), prompt: 'What is this?' }];
  const config = sections({ info: { holdout: 2 }, run: { ...run, valid_answers: answers } });
  const { events, folder } = await trained(config);
  const validations = events.filter((event): event is ValidationEvent => event.kind === 'validation');
  assert.equal(
    validations.map(({ step }) => step),
    [2, 4, 6],
  );
  for (const { loss, answers } of validations) {
    assert.ok(loss! > 0);
    assert.equal(
      answers.map(({ picture, prompt }) => [picture, prompt]),
      [
        [at('0.png'), 'Describe this.'],
        [at('1.png'), 'What is this?'],
      ],
    );
  }
  const lines = readFileSync(join(folder, 'answers.jsonl'), 'utf8').trim().split('\n');
  assert.equal(
    lines.map((line) => JSON.parse(line) as unknown),
    validations.map(({ step, loss, answers }) => ({ step, loss, answers })),
  );
  const best = validations.filter(({ best }) => best).at(-1)!;
  assert.is(best.loss, Math.min(...validations.map(({ loss }) => loss!)));
  assert.is(readFileSync(join(folder, 'best'), 'utf8').trim(), checkpointName(best.step));
  const kept = readdirSync(folder).filter((name) => name.startsWith('checkpoint'));
  assert.equal(kept.sort(), [...new Set([best.step, 6])].map(checkpointName));
  assert.is((await readCheckpoint(join(folder, checkpointName(best.step)))).state.best, best.loss);
  // the same numbers without looking
  const blind = await trained(sections({ info: { holdout: 2 }, run: { ...run, valid_every: 99 } }));
  assert.equal((await stateOf(blind.folder, 6)).trainer, (await stateOf(folder, 6)).trainer);
});

test('what cannot be used is passed over, counted and named; ends that are cut are counted', async () => {
  writeFileSync(
    at('mixed.jsonl'),
    [
      readFileSync(at('pairs.jsonl'), 'utf8').trim(),
      JSON.stringify({ path: 'missing.png', caption: 'nothing to see' }),
      JSON.stringify({ path: '0.png', caption: 'words '.repeat(60) }),
    ].join('\n'),
  );
  const { events, steps } = await trained(
    sections({ info: { storage: at('mixed.jsonl') }, run: { iters_per_epoch: 9 }, model: { max_txt_len: 10 } }),
  );
  const skips = events.filter((event) => event.kind === 'skip');
  assert.ok(skips.length > 0);
  assert.ok(skips.every(({ dataset, reason }) => dataset === 'pairs' && reason.includes('missing.png')));
  assert.is(steps.at(-1)!.skipped, skips.length);
  assert.ok(steps.at(-1)!.cut! > 0);
  const { message } = await rejects('ERR_ARGUMENT', trained(sections({ model: { max_txt_len: 2 } })));
  assert.match(message, /model\.max_txt_len: expected more than 2, the tokens of end_sym, found 2$/);
  // rows that the model does not take
  const narrow = await rejects('ERR_FILE_FORMAT', trained(sections({ run: { max_rows: 8 } })));
  assert.match(
    narrow.message,
    /^100 batches in a row have no pair that can be used: 200 pairs were passed over, the first of them .*\(pairs\): \S/,
  );
});

test('a run that fails tells first what it has passed over, and leaves its folder free', async () => {
  const output = fresh();
  const seen: TrainEvent[] = [];
  const narrow = sections({ run: { max_rows: 8 } });
  await rejects(
    'ERR_FILE_FORMAT',
    trained(narrow, { output }, (event) => seen.push(event)),
  );
  assert.equal([seen.length, new Set(seen.map(({ kind }) => kind))], [200, new Set(['skip'])]);
  // nothing was learned that could be kept, and what was wrong can be put right
  assert.equal(readdirSync(output), ['config.yaml']);
  assert.is((await trained(sections(), { output })).steps.length, 5);
});

const looking = () =>
  sections({
    info: { holdout: 2 },
    run: { iters_per_epoch: 4, valid_every: 2, checkpoint_every: 4, init_lr: 0.02, valid_answers: [at('0.png')] },
  });

/** A run that calls `on` each time it begins to validate or apply, with its turn from 1. */
async function meddled(
  config: TrainSections,
  options: TrainOptions & { output: string },
  name: 'validate' | 'apply',
  on: (turn: number) => void,
): Promise<TrainEvent[]> {
  const all = { ...options, group: alone() };
  const prepared = await prepare(config, all);
  const { trainer } = prepared;
  let turn = 0;
  const meddling = new Proxy(trainer, {
    get(_, key) {
      const value = Reflect.get(trainer, key) as unknown;
      if (typeof value !== 'function') return value;
      const call = (...words: unknown[]) => (value as (...words: unknown[]) => unknown).apply(trainer, words);
      if (key !== name) return call;
      return (...words: unknown[]) => {
        const result = call(...words);
        on(++turn);
        return result;
      };
    },
  });
  const { validation } = prepared;
  if (name === 'validate') {
    const loss = validation.loss.bind(validation);
    validation.loss = async () => {
      on(++turn);
      return loss();
    };
  }
  const events: TrainEvent[] = [];
  const loop = new TrainingLoop({ ...prepared, trainer: meddling }, all);
  for await (const event of loop.events()) events.push(event);
  return events;
}

test('a run that is stopped while it validates, and goes on, ends as one that was not', async () => {
  const expected = await trained(looking());
  const told = (events: TrainEvent[]) => events.filter(({ kind }) => kind === 'validation');
  const answers = (folder: string) => readFileSync(join(folder, 'answers.jsonl'), 'utf8');
  assert.is(told(expected.events).length, 2);
  for (const turn of [1, 2]) {
    const output = fresh();
    const controller = new AbortController();
    const stop = (now: number) => {
      if (now === turn) controller.abort();
    };
    await rejects('ERR_ABORTED', meddled(looking(), { output, signal: controller.signal }, 'validate', stop));
    assert.is((await readCheckpoint(join(output, checkpointName(2 * turn)))).state.step, 2 * turn);
    // as if it had been killed after its answers were written
    writeFileSync(join(output, 'answers.jsonl'), `{"step":${2 * turn}}\n{"ste`, { flag: 'a' });
    const { events } = await trained(looking(), { output, resume: output });
    assert.equal(told(events), told(expected.events).slice(turn - 1));
    assert.is(answers(output), answers(expected.folder));
    assert.is(readFileSync(join(output, 'best'), 'utf8'), readFileSync(join(expected.folder, 'best'), 'utf8'));
    const last = async (of: string) => (await readCheckpoint(join(of, checkpointName(4)))).state;
    assert.equal(await last(output), await last(expected.folder));
  }
});

test('an abort while a step is applied leaves weights and a step that belong together', async () => {
  const { folder } = await whole();
  const output = fresh();
  const controller = new AbortController();
  const config = sections({ run: { checkpoint_every: 99 } });
  await rejects(
    'ERR_ABORTED',
    meddled(config, { output, signal: controller.signal }, 'apply', (turn) => {
      if (turn === 3) controller.abort();
    }),
  );
  const [name] = readdirSync(output).filter((each) => each.startsWith('checkpoint-'));
  const { state } = await readCheckpoint(join(output, name!));
  assert.is(name, checkpointName(state.step));
  assert.ok(state.step === 2 || state.step === 3);
  assert.equal(await stateOf(output, state.step), await stateOf(folder, state.step));
  await trained(config, { output, resume: output });
  assert.equal(await stateOf(output, 5), await stateOf(folder, 5));
});

test('a folder that a run is at work in is refused to another', async () => {
  const output = fresh();
  const first = train(sections(), { output });
  await first.facts();
  const { message } = await rejects('ERR_ARGUMENT', trained(sections(), { output }));
  assert.match(message, /expected a folder that no other run works in, found one of this process$/);
  await first.close();
  assert.is((await trained(sections(), { output })).steps.length, 5);
  assert.not.ok(existsSync(join(output, 'run.lock')));
});

test('going on with what is finished, gone or damaged says so', async () => {
  const { folder } = await whole();
  const copy = fresh();
  for (const step of [4, 5]) cpSync(join(folder, checkpointName(step)), join(copy, checkpointName(step)));
  const path = join(copy, checkpointName(5));
  await point(copy, 'latest', 9);
  const run = train(sections(), { output: copy, resume: copy });
  const { notices } = await run.facts();
  assert.equal(notices.length, 2);
  assert.match(notices[0]!, /latest names checkpoint-000009\.safetensors, which is not there/);
  assert.is(notices[1], `the run has all its 5 steps already; its last checkpoint is ${path}`);
  const events: TrainEvent[] = [];
  for await (const event of run) events.push(event);
  assert.equal(events, [{ kind: 'checkpoint', step: 5, path }]);
  const bytes = readFileSync(path);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(path, bytes);
  await point(copy, 'latest', 5);
  const { message } = await rejects('ERR_FILE_FORMAT', trained(sections(), { output: copy, resume: copy }));
  assert.ok(message.endsWith(`; the checkpoint before it is ${join(copy, checkpointName(4))}`), message);
});

test("the data's state is refused in words, with its checkpoint", async () => {
  const { folder } = await whole();
  const copy = fresh();
  const path = join(copy, checkpointName(2));
  const { trainer, state } = await readCheckpoint(join(folder, checkpointName(2)));
  const loader = { ...(state.ranks[0]!.loader as object), random: [0, 0, 0, 0] };
  await writeCheckpoint(path, trainer, { ...state, ranks: [{ ...state.ranks[0]!, loader }] });
  const { message } = await rejects('ERR_ARGUMENT', trained(sections(), { output: copy, resume: copy }));
  assert.is(
    message,
    `${path}: the data's state cannot be gone on from: random: ` +
      'expected four whole numbers from 0 to 4294967295, not all 0, found [0,0,0,0]',
  );
});

/** Two processes of a group in one, summing as they meet. */
function twins(): [ProcessGroup, ProcessGroup] & { fail: (error: Error) => void } {
  let waiting: { values: number[]; resolve: (sum: number[]) => void } | undefined;
  let fail: (error: Error) => void = () => {};
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => {});
  const sumNumbers = (values: number[]): Promise<number[]> => {
    if (!waiting) return new Promise((resolve) => (waiting = { values, resolve }));
    const other = waiting;
    waiting = undefined;
    assert.is(values.length, other.values.length);
    const sum = values.map((value, i) => value + other.values[i]!);
    other.resolve(sum);
    return Promise.resolve(sum);
  };
  const group = (rank: number): ProcessGroup => ({
    rank,
    size: 2,
    sumNumbers,
    sum: async (values) => Float32Array.from(await sumNumbers(Array.from(values))),
    failed,
    close: async () => {},
  });
  return Object.assign([group(0), group(1)] as [ProcessGroup, ProcessGroup], { fail });
}

test('several processes take the same steps, stop together, and go on with the same bits', async () => {
  const groups = twins();
  const texts = ['', 'αβγ 日本語 with more than six bytes'];
  assert.equal(await Promise.all(groups.map((group) => gatherTexts(group, texts[group.rank]!))), [texts, texts]);

  const config = sections({ info: { holdout: 2 } });
  const together = (options: TrainOptions, seen?: (event: TrainEvent) => void) =>
    Promise.all(twins().map((group) => trained(config, { ...options, group }, group.rank === 0 ? seen : undefined)));
  const output = fresh();
  const [first, second] = await together({ output });
  const told = ({ steps }: Trained) => steps.map(({ loss, pairs, gradientNorm }) => [loss, pairs, gradientNorm]);
  assert.equal(told(first!), told(second!));
  assert.ok(first!.steps.every(({ pairs }) => pairs === 4));
  assert.not.ok(
    second!.events.some(({ kind }) => kind === 'checkpoint'),
    'the first one alone writes',
  );
  const { ranks } = await stateOf(output, 5);
  assert.is(ranks.length, 2);
  assert.not.equal(ranks[0], ranks[1]);

  // one of them is told to stop: both do, after the same step
  const stopped = fresh();
  const controller = new AbortController();
  const pair = twins();
  const outcomes = await Promise.allSettled(
    pair.map((group) =>
      trained(
        config,
        { output: stopped, group, ...(group.rank === 1 ? { signal: controller.signal } : {}) },
        (event) => {
          if (group.rank === 1 && event.kind === 'step' && event.step === 2) controller.abort();
        },
      ),
    ),
  );
  for (const outcome of outcomes)
    assert.is(outcome.status === 'rejected' && (outcome.reason as MiniGptError).code, 'ERR_ABORTED');
  assert.is(readFileSync(join(stopped, 'latest'), 'utf8').trim(), checkpointName(3));
  await together({ output: stopped, resume: stopped });
  assert.equal(await stateOf(stopped, 5), await stateOf(output, 5));
  // by another number of processes they are not gone on with
  await rejects('ERR_ARGUMENT', trained(config, { output: stopped, resume: join(stopped, checkpointName(3)) }));
});

test('a process that is gone ends the others with its name, and a checkpoint', async () => {
  const pair = twins();
  const output = fresh();
  let waiting = 2; // for both to have done two steps
  const done = () => {
    if (--waiting === 0) pair.fail(new MiniGptError('ERR_COLLECTIVE', 'rank 1 (process 7) has died'));
  };
  const outcome = Promise.allSettled([
    trained(sections({ run: { checkpoint_every: 99 } }), { output, group: pair[0] }, (event) => {
      if (event.kind === 'step' && event.step === 2) done();
    }),
    (async () => {
      for await (const event of train(sections(), { group: pair[1] }))
        if (event.kind === 'step' && event.step === 2) break;
      done();
    })(),
  ]);
  const [first] = await outcome;
  const error = (first as PromiseRejectedResult).reason as MiniGptError;
  assert.is(error.code, 'ERR_COLLECTIVE');
  assert.ok(error.message.startsWith('rank 1 (process 7) has died'), error.message);
  assert.ok(error.message.includes(join(output, checkpointName(2))), error.message);
  assert.equal((await readCheckpoint(join(output, checkpointName(2)))).state.step, 2);
});

test('a run tells the GPU what it may take, and the command tells the run', async () => {
  const parted = train(sections({ run: { device, vision_device: 'cpu' } }));
  assert.match((await parted.facts()).device, /, not the picture's side; the rest on cpu/);
  await parted.close();
  // one picture would fit before 32 do
  const messages: string[] = [];
  for (let bytes = 2 ** 18; bytes < 2 ** 34; bytes *= 1.25) {
    const run = { device, vision_device: 'gpu', image_batch: 32, gpu_memory: Math.round(bytes) };
    const training = train(sections({ run }));
    const failed = await training.facts().then(
      () => undefined,
      (error: MiniGptError) => error,
    );
    await training.close();
    if (failed === undefined) break;
    messages.push(`${failed.code}: ${failed.message}`);
  }
  assert.ok(
    messages.some((one) => /^ERR_OUT_OF_MEMORY: .* with 32 pictures at once/.test(one)),
    messages.join('\n'),
  );
  const file = at('gpu.yaml');
  writeFileSync(file, JSON.stringify(sections()));
  const words = ['--device', device, '--vision-device', 'gpu', '--gpu-memory', '100000', '--image-batch', '2'];
  const { code, stderr } = await minigpt4(['train', file, ...words]);
  assert.is(code, 1, stderr);
  assert.match(stderr, /the picture's side needs \d+ bytes .* are left/);
});

test('the command prints steps, writes its files, and refuses what is wrong', async () => {
  const file = at('train.yaml');
  writeFileSync(file, JSON.stringify(sections())); // which is YAML too
  const command = (words: string[], options?: RunOptions) => minigpt4(['train', ...words], options);
  const output = fresh();
  const done = await command([file, '--output', output, '--set', 'run.iters_per_epoch=2']);
  assert.is(done.code, 0, done.stderr);
  assert.is(done.stdout, `${join(output, checkpointName(2))}\n`);
  assert.match(done.stderr, /step 1\/2 .*loss \d/);
  assert.ok(existsSync(join(output, 'metrics.jsonl')));
  const json = await command([file, '--output', output, '--resume', '--json', '--threads', '2', '--device', 'cpu']);
  assert.is(json.code, 0, json.stderr);
  const lines = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { kind: string; step?: number });
  assert.equal(
    lines.filter(({ kind }) => kind !== 'checkpoint').map(({ kind, step }) => [kind, step]),
    [
      ['run', undefined],
      ['step', 3],
      ['step', 4],
      ['step', 5],
    ],
  );
  const again = await command([file, '--output', output, '--resume']);
  assert.is(again.stdout, `${join(output, checkpointName(5))}\n`, again.stderr);
  assert.match(again.stderr, /the run has all its 5 steps already/);
  let interrupted = false;
  const stopped = await command([file, '--json', '--set', 'run.iters_per_epoch=5000'], {
    onOutput: (stdout, child) => {
      if (interrupted || !stdout.includes('"step":1,')) return;
      interrupted = true; // a second one would end it at once
      child.kill('SIGINT');
    },
  });
  assert.is(stopped.code, 130, stopped.stderr);
  const [checkpoint, told] = stopped.stdout
    .trim()
    .split('\n')
    .slice(-2)
    .map((line) => JSON.parse(line) as { kind: string; path: string; error: { code: string } });
  assert.equal([checkpoint!.kind, told!.error.code], ['checkpoint', 'ERR_ABORTED']);
  assert.ok((await readCheckpoint(checkpoint!.path)).state.step >= 1);
  const wrong = await command([file, '--set', 'run.max_epochs=1']);
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, /did you mean run\.max_epoch\?/);
});

test.run();
