// What a training configuration may say, how wrong ones are refused, the schedule's numbers, and the rows that pairs become.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addon } from '../lib/addon.js';
import { readConfig, type TrainConfig } from '../lib/train/config.js';
import { ExampleMaker, type ExampleModel, type ExampleRules } from '../lib/train/examples.js';
import { learningRate, type Schedule } from '../lib/train/schedule.js';
import { train, type TrainOptions } from '../lib/train/train.js';
import { root } from './checkout.js';
import { fixture } from './models.js';
import { rejects } from './rejects.js';

const test = suite('train config');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-config-test-'));
const dataBefore = process.env['MINIGPT4_DATA'];
test.before(() => {
  process.env['MINIGPT4_DATA'] = join(folder, 'data');
});
test.after(() => {
  if (dataBefore === undefined) delete process.env['MINIGPT4_DATA'];
  else process.env['MINIGPT4_DATA'] = dataBefore;
  rmSync(folder, { recursive: true, force: true });
});

/** A file of the original's form, keys without a meaning here included. */
const original = `model:
  arch: minigpt4
  model_type: pretrain_vicuna0
  max_txt_len: 160
  end_sym: "###"
  prompt_path: "prompts/alignment.txt"
  prompt_template: '###Human: {} ###Assistant: '
  ckpt: '/path/to/checkpoint.pth'
  freeze_vit: True
  vit_precision: "fp16"
datasets:
  cc_sbu_align:
    batch_size: 12
    vis_processor:
      train:
        name: "blip2_image_train"
        image_size: 224
    text_processor:
      train:
        name: "blip_caption"
    build_info:
      storage: /path/to/cc_sbu_align/
run:
  task: image_text_pretrain
  # a comment
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 3e-5
  min_lr: 1e-5
  warmup_lr: 1e-6
  weight_decay: 0.05
  max_epoch: 5
  iters_per_epoch: 200
  num_workers: 4
  warmup_steps: 200
  seed: 42
  output_dir: "output/two"
  amp: True
  resume_ckpt_path: null
  evaluate: False
  train_splits: ["train"]
  device: "cuda"
  world_size: 1
  dist_url: "env://"
  distributed: True
  wandb_log: True
  job_name: minigpt4_finetune
`;
const file = join(folder, 'original.yaml');
writeFileSync(file, original);
const shipped = (name: string) => readConfig(join(root, 'configs', `${name}.yaml`));

test('reads a file of the original; what means nothing here is named', async () => {
  const config = await readConfig(file);
  assert.is(config.model.ckpt, '/path/to/checkpoint.pth');
  assert.is(config.model.max_txt_len, 160);
  assert.equal(config.prompts, [
    '<Img><ImageHere></Img> Describe this image in detail.',
    '<Img><ImageHere></Img> Take a look at this image and describe what you notice.',
    '<Img><ImageHere></Img> Please provide a detailed description of the picture.',
    '<Img><ImageHere></Img> Could you describe the contents of this image for me?',
  ]);
  assert.equal(config.datasets, [
    {
      name: 'cc_sbu_align',
      format: 'cc_sbu_align',
      storage: '/path/to/cc_sbu_align',
      batchSize: 12,
      sampleRatio: 1,
      shuffleBuffer: 1000,
      holdout: 0,
    },
  ]);
  assert.equal(
    [config.run.init_lr, config.run.max_epoch, config.run.device, config.run.job_name, config.run.beta2],
    [3e-5, 5, 'cuda', 'minigpt4_finetune', 0.999],
  );
  assert.not.ok('resume_ckpt_path' in config.run, 'null is as if it were not there');
  assert.equal(
    config.ignored.sort(),
    [
      'model.vit_precision',
      ...['amp', 'dist_url', 'distributed', 'task', 'train_splits', 'wandb_log', 'world_size'].map(
        (key) => `run.${key}`,
      ),
    ].sort(),
  );
});

test('the shipped configurations have the published numbers', async () => {
  const numbers = ({ run, datasets, model }: TrainConfig) => [
    [run.init_lr, run.min_lr, run.warmup_lr, run.warmup_steps, run.weight_decay],
    [run.max_epoch, run.iters_per_epoch, run.seed],
    datasets.map(({ batchSize, sampleRatio }) => [batchSize, sampleRatio]),
    [model.max_txt_len, model.end_sym, model.prompt_template],
  ];
  const stage1 = [
    [1e-4, 8e-5, 1e-6, 5000, 0.05],
    [4, 5000, 42],
    [
      [64, 115],
      [64, 14],
    ],
    [32, '\n', '{}'],
  ];
  const stage2 = (end: string, template: string) => [
    [3e-5, 1e-5, 1e-6, 200, 0.05],
    [5, 200, 42],
    [[12, 1]],
    [160, end, template],
  ];
  assert.equal(numbers(await shipped('stage1')), stage1);
  assert.equal(numbers(await shipped('llama2-stage1')), stage1);
  assert.equal(numbers(await shipped('stage2')), stage2('###', '###Human: {} ###Assistant: '));
  assert.equal(numbers(await shipped('llama2-stage2')), stage2('</s>', '[INST] {} [/INST] '));
  // the recipe that the miniature world's projection was trained with
  assert.equal(numbers(await shipped('miniature-stage1')), [
    [0.025, 0.0025, 1e-6, 90, 0.05],
    [1, 900, 42],
    [[32, 1]],
    [32, '\n', '{}'],
  ]);
  assert.equal(numbers(await shipped('miniature-stage2')), [
    [0.002, 0.0002, 1e-6, 30, 0.05],
    [1, 300, 42],
    [[12, 1]],
    [160, '###', '###Human: {} ###Assistant: '],
  ]);
  const { datasets } = await shipped('miniature-stage1');
  assert.is(datasets[0]!.storage, join(folder, 'data', 'stage1', '{00000..00005}.tar'));
  assert.equal((await shipped('sample')).ignored, []);
});

test('every shipped configuration is read without a word about it', async () => {
  for (const name of ['stage1', 'stage2', 'llama2-stage1', 'llama2-stage2', 'miniature-stage1', 'miniature-stage2'])
    assert.equal((await shipped(name)).ignored, [], name);
});

test('overrides are YAML values, and are told apart from the file where they are wrong', async () => {
  const config = await readConfig(file, ['run.max_epoch=1', 'model.end_sym="\\n"', 'run.resume_ckpt_path=/x/y']);
  assert.equal([config.run.max_epoch, config.model.end_sym, config.run.resume_ckpt_path], [1, '\n', '/x/y']);
  const wrong = await rejects('ERR_ARGUMENT', readConfig(file, ['run.max_epoch=one']));
  assert.is(wrong.message, '--set run.max_epoch: expected a whole number from 1 to 2147483647, found "one"');
  assert.match((await rejects('ERR_ARGUMENT', readConfig(file, ['run.max_epoch']))).message, /expected key=value/);
});

test('what a GPU is told is checked, and is no part of what decides the numbers', async () => {
  const set = ['run.vision_device=cpu', 'run.gpu_memory=8000000000', 'run.image_batch=4'];
  const { run } = await readConfig(file, set);
  assert.equal([run.vision_device, run.gpu_memory, run.image_batch], ['cpu', 8e9, 4]);
  const { run: none } = await readConfig(file);
  for (const key of ['vision_device', 'gpu_memory', 'image_batch']) assert.not.ok(key in none, key);
  const told = async (...changes: string[]) => (await rejects('ERR_ARGUMENT', readConfig(file, changes))).message;
  assert.is(
    await told('run.device=cpu', 'run.vision_device=gpu'),
    "--set run.vision_device is 'gpu', but run.device is 'cpu': expected 'cpu', or a GPU as run.device",
  );
  assert.match(
    await told('run.device=cpu', 'run.gpu_memory=5'),
    /^--set run\.gpu_memory is 5, but run\.device is 'cpu'/,
  );
  // where a GPU may be, or not
  assert.is((await readConfig(file, ['run.device=auto', 'run.vision_device=gpu'])).run.vision_device, 'gpu');
});

/** A change of the file, the words at whose line it is found wrong, and what is said after that. */
const wrong: [change: [string, string], at: string, message: string][] = [
  [['max_epoch: 5', 'maxepoch: 5'], 'maxepoch', 'run.maxepoch: is no known key; did you mean run.max_epoch?'],
  [
    ['max_epoch: 5', 'max_epoch: 5.5'],
    'max_epoch',
    'run.max_epoch: expected a whole number from 1 to 2147483647, found 5.5',
  ],
  [['  max_epoch: 5\n', ''], 'run:', 'run.max_epoch: expected a whole number from 1 to 2147483647, found nothing'],
  [['init_lr: 3e-5', 'init_lr: -1'], 'init_lr', 'run.init_lr: expected a number from 0, found -1'],
  [
    ['batch_size: 12', 'batch_size: 0'],
    'batch_size',
    'datasets.cc_sbu_align.batch_size: expected a whole number from 1 to 2147483647, found 0',
  ],
  [
    ['    batch_size: 12\n', ''],
    'cc_sbu_align:',
    'datasets.cc_sbu_align.batch_size: expected a whole number from 1 to 2147483647, found nothing',
  ],
  [
    ['linear_warmup_cosine_lr', 'linear_warmup_cosin_lr'],
    'lr_sched',
    'run.lr_sched: expected one of linear_warmup_cosine_lr, found "linear_warmup_cosin_lr" ' +
      '(did you mean linear_warmup_cosine_lr?)',
  ],
  [
    ['freeze_vit: True', 'freeze_vit: False'],
    'freeze_vit',
    'model.freeze_vit: expected true, since nothing else can be done here, found false',
  ],
  [
    ["'###Human: {} ###Assistant: '", "'no place'"],
    'prompt_template',
    'model.prompt_template: expected a text with {} in it, once, found "no place"',
  ],
  [
    ['arch: minigpt4', 'arch: minigpt_v2'],
    'arch',
    'model.arch: expected one of minigpt4, mini_gpt4, found "minigpt_v2" (did you mean minigpt4?)',
  ],
  [
    ['storage: /path/to/cc_sbu_align/', 'holdout: 3'],
    'build_info',
    'datasets.cc_sbu_align.build_info.storage: expected where the pairs are, found nothing',
  ],
  [
    ['/path/to/cc_sbu_align/', '${MINIGPT4_NOWHERE}/a'],
    'storage',
    "datasets.cc_sbu_align.build_info.storage: expected the environment's MINIGPT4_NOWHERE to be set " +
      '(${MINIGPT4_NOWHERE}/a), found none',
  ],
  [
    ['iters_per_epoch: 200', 'iters_per_epoch: 200\n  accum_grad_iters: 3'],
    'accum_grad_iters',
    'run.accum_grad_iters: expected a divisor of iters_per_epoch (200), so that epochs end with a step, found 3',
  ],
  [
    ['iters_per_epoch: 200', 'iters_per_epoch: 200\n  image_batch: 33'],
    'image_batch',
    'run.image_batch: expected a whole number from 1 to 32, found 33',
  ],
  [
    ['iters_per_epoch: 200', 'iters_per_epoch: 200\n  vision_device: gpuu'],
    'vision_device',
    "run.vision_device: expected 'cpu' or 'gpu', found \"gpuu\" (did you mean gpu?)",
  ],
  [
    ['device: "cuda"', 'device: gpu'],
    'device',
    "run.device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', found \"gpu\" (did you mean cuda?)",
  ],
  [['run:\n', 'runs:\n'], 'runs:', 'runs: is no known key; did you mean run?'],
  [
    ['  cc_sbu_align:\n', '  cc_sbu_align: 7\n  other:\n'],
    'cc_sbu_align',
    'datasets.cc_sbu_align: expected a section with format, batch_size, sample_ratio, vis_processor, text_processor, ' +
      'build_info, found 7',
  ],
];
for (const [[from, to], at, message] of wrong) {
  test(`refuses ${to.trim() || `a file without ${from.trim()}`}`, async () => {
    assert.ok(original.includes(from));
    const changed = original.replace(from, () => to);
    const path = join(folder, 'changed.yaml');
    writeFileSync(path, changed);
    const line = changed.slice(0, changed.search(new RegExp(`^ *${at}`, 'm'))).split('\n').length;
    assert.is((await rejects('ERR_ARGUMENT', readConfig(path))).message, `${path}:${line}: ${message}`);
  });
}

test('refuses what is no YAML', async () => {
  const path = join(folder, 'torn.yaml');
  writeFileSync(path, original.replace('run:\n', 'run: [\n'));
  assert.match((await rejects('ERR_ARGUMENT', readConfig(path))).message, /torn\.yaml:\d+: no YAML: /);
  writeFileSync(path, '');
  assert.match((await rejects('ERR_ARGUMENT', readConfig(path))).message, /expected the sections model, datasets, run/);
});

test('a configuration without data sets, without a file, or without prompts', async () => {
  assert.match(
    (await rejects('ERR_ARGUMENT', readConfig({ datasets: {}, run: schedule(1, 1) }))).message,
    /datasets: expected at least one data set, found none$/,
  );
  await rejects('ERR_FILE_NOT_FOUND', readConfig(join(folder, 'missing.yaml')));
  await rejects('ERR_FILE_NOT_FOUND', readConfig(file, ['model.prompt_path=missing.txt']));
  writeFileSync(join(folder, 'none.txt'), 'Describe this.\n');
  assert.match(
    (await rejects('ERR_ARGUMENT', readConfig(file, ['model.prompt_path=none.txt']))).message,
    /expected lines with <ImageHere> in .*none\.txt, found none$/,
  );
});

const schedule = (max_epoch: number, iters_per_epoch: number): Schedule & Record<string, unknown> => ({
  init_lr: 0.01,
  min_lr: 0.001,
  warmup_lr: 0.0001,
  warmup_steps: 3,
  max_epoch,
  iters_per_epoch,
});

test('crops, captions and batch sizes are read as each form of the original has them', async () => {
  const dataset = (more: object) => ({ build_info: { storage: 'pairs.csv' }, ...more });
  const config = await readConfig({
    datasets: {
      whole: dataset({ vis_processor: { train: { name: 'blip2_image_train', min_scale: 0.2 } } }),
      crop: dataset({
        batch_size: 3,
        vis_processor: { train: { name: 'blip2_image_train_random_crop', max_scale: 0.9 } },
      }),
      words: dataset({ text_processor: { train: { name: 'blip_caption', max_words: 7 } } }),
      laion: { build_info: { storage: 'a/{000..010}.tar' } },
      talk: { build_info: { ann_path: 'talk.json', image_path: 'pictures' } },
    },
    run: { ...schedule(1, 1), batch_size_train: 64 },
  });
  const [whole, crop, words, laion, talk] = config.datasets;
  assert.equal([whole!.crop, whole!.caption, whole!.batchSize, whole!.format], [undefined, undefined, 64, 'list']);
  assert.equal([crop!.crop, crop!.batchSize], [{ minScale: 0.5, maxScale: 0.9 }, 3]);
  assert.equal(words!.caption, { maxWords: 7, prompt: '' });
  assert.is(laion!.format, 'webdataset');
  assert.equal([talk!.format, talk!.images], ['llava', join(process.cwd(), 'pictures')]);
  assert.equal(config.ignored, ['datasets.whole.vis_processor.train.min_scale']);
  assert.equal(config.run.feature_cache, undefined);
});

test('the learning rate has the published values, jump and all', () => {
  const stage1 = {
    init_lr: 1e-4,
    min_lr: 8e-5,
    warmup_lr: 1e-6,
    warmup_steps: 5000,
    max_epoch: 4,
    iters_per_epoch: 5000,
  };
  const stage2 = {
    init_lr: 3e-5,
    min_lr: 1e-5,
    warmup_lr: 1e-6,
    warmup_steps: 200,
    max_epoch: 5,
    iters_per_epoch: 200,
  };
  const at = (of: Schedule, iteration: number) => learningRate(of, iteration).toExponential(4);
  assert.equal(
    [0, 4999, 5000, 19999].map((i) => at(stage1, i)),
    ['1.0000e-6', '9.9980e-5', '9.7071e-5', '8.0000e-5'],
  );
  assert.equal(
    [0, 199, 200, 999].map((i) => at(stage2, i)),
    ['1.0000e-6', '2.9855e-5', '2.8090e-5', '1.0000e-5'],
  );
  const expected = JSON.parse(readFileSync(fixture('expected.json'), 'utf8')) as Expected;
  for (const [i, rate] of expected.stage1.learning_rates.entries())
    assert.ok(Math.abs(learningRate(schedule(1, 12), i) / rate - 1) < 1e-14);
  // a warm-up longer than an epoch begins anew with every epoch, until it is over
  const short = { ...schedule(4, 2), warmup_lr: 0 };
  assert.equal(
    [0, 1, 2].map((i) => learningRate(short, i)),
    [0, 0.01 * (1 / 3), 0],
  );
  assert.throws(() => learningRate(short, 8), /from 0 to 7, found 8/);
});

interface Batch {
  answers: string[];
  end_sym: string;
  prompt_ids: [number[], number[]] | null;
  answer_ids: number[][];
  learning_rates: number[];
}
interface Expected {
  stage1: Batch;
  stage2: Batch;
}

const tokenizer = addon.createTokenizer(readFileSync(fixture('llama2/tokenizer.model')));
const imageTokens = 4;
const model = {
  encode: (text: string, specials?: boolean) => tokenizer.encode(text, specials),
  info: () => ({ bos: 1, imageTokens }),
} as unknown as ExampleModel;
const picture = [-1, -1, -1, -1];
const ids = (text: string) => Array.from(tokenizer.encode(text));
const prompt = '<Img><ImageHere></Img> Describe this image in detail.';
const vicuna: ExampleRules = {
  prompts: [prompt],
  template: '###Human: {} ###Assistant: ',
  endSymbol: '###',
  maxTextLength: 160,
};

test('rows of both stages are those of the reference', () => {
  const expected = JSON.parse(readFileSync(fixture('expected.json'), 'utf8')) as Expected;
  const stages: [Batch, ExampleRules][] = [
    [expected.stage1, { prompts: [], template: '{}', endSymbol: '\n', maxTextLength: 32 }],
    [expected.stage2, vicuna],
  ];
  for (const [{ answers, answer_ids, prompt_ids }, rules] of stages) {
    const maker = new ExampleMaker(model, rules);
    const cuts = answers.map((answer, i) => {
      const example = maker.example({ name: 'a', turns: [{ answer }] }, 0);
      const [before, after] = prompt_ids ?? [[], []];
      const said = answer_ids[i]!;
      const all = [1, ...before, ...picture, ...after, ...said];
      assert.equal(Array.from(example.ids), all.slice(0, -1));
      const unasked = all.length - said.length - 1;
      assert.equal(Array.from(example.targets), [...new Array<number>(unasked).fill(-1), ...said]);
      return example.cut;
    });
    // the third answer of stage 1 has 50 tokens, of which 32 are kept
    assert.equal(cuts, prompt_ids ? [false, false, false] : [false, false, true]);
  }
});

test('`</s>` in the end symbol and the template is the token, in what data say it is text', () => {
  const maker = new ExampleMaker(model, {
    prompts: [prompt],
    template: '<s>[INST] {} [/INST] ',
    endSymbol: '</s>',
    maxTextLength: 99,
  });
  const { ids: rows, targets } = maker.example({ name: 'a', turns: [{ answer: 'a dog</s>' }] }, 0);
  const before = [1, 1, ...ids('[INST] <Img>'), ...picture, ...ids('</Img> Describe this image in detail. [/INST] ')];
  assert.equal(Array.from(rows), [...before, ...ids('a dog</s>')]);
  assert.equal(Array.from(targets).slice(before.length - 1), [...ids('a dog</s>'), 2]);
  const asked = maker.example({ name: 'a', turns: [{ question: 'What is <s>?', answer: 'it' }] }, 0);
  assert.equal(Array.from(asked.ids).slice(2), [
    ...ids('[INST] <Img>'),
    ...picture,
    ...ids('</Img> What is <s>? [/INST] '),
    ...ids('it'),
  ]);
});

test('of a conversation every answer is learned, and no later question', () => {
  const maker = new ExampleMaker(model, vicuna);
  const turns = [
    { question: 'What?', answer: 'a dog' },
    { question: 'Where?', answer: 'here' },
  ];
  const { ids: rows, targets, cut } = maker.example({ name: 'a', turns }, 0);
  const first = [1, ...ids('###Human: <Img>'), ...picture, ...ids('</Img> What? ###Assistant: ')];
  const second = [1, ...ids('###Human: Where? ###Assistant: ')];
  const answers = [ids('a dog###'), ids('here###')] as const;
  assert.equal(Array.from(rows), [...first, ...answers[0], ...second, ...answers[1].slice(0, -1)]);
  const none = (count: number) => new Array<number>(count).fill(-1);
  assert.equal(Array.from(targets), [...none(first.length - 1), ...answers[0], ...none(second.length), ...answers[1]]);
  assert.not.ok(cut);
  // cut within the second question: nothing after the first answer is worth a row
  const short = new ExampleMaker(model, { ...vicuna, maxTextLength: answers[0].length + 2 }).example(
    { name: 'a', turns },
    0,
  );
  assert.equal(Array.from(short.ids), [...first, ...answers[0].slice(0, -1)]);
  assert.ok(short.cut);
  assert.throws(
    () => new ExampleMaker(model, { ...vicuna, endSymbol: '' }).example({ name: 'x/1', turns: [{ answer: '' }] }, 0),
    /x\/1: expected an answer with a token to learn/,
  );
});

const wrongOptions: [unknown, RegExp][] = [
  [null, /^train\(\): expected an object of options, found null$/],
  [{ sett: [] }, /unknown option sett; did you mean set\?/],
  [{ set: 'run.seed=1' }, /option set: expected an array of texts.*, found "run.seed=1"/],
  [{ set: [5] }, /option set: /],
  [{ output: '' }, /option output: expected the path of a folder, found ""/],
  [{ output: null }, /option output: .* found null/],
  [{ resume: 5 }, /option resume: .* found 5/],
  [{ resume: '' }, /option resume: /],
  [{ signal: 5 }, /option signal: expected an AbortSignal, found 5/],
  [{ group: null }, /option group: expected a group of processes, found null/],
  [{ onWarning: 5 }, /option onWarning: /],
];
for (const [options, words] of wrongOptions) {
  test(`train() refuses ${JSON.stringify(options)}, when asked for anything`, async () => {
    const { message } = await rejects('ERR_ARGUMENT', train(file, options as TrainOptions).facts());
    assert.match(message, words);
    const run = train(file, options as TrainOptions);
    const iterated = run[Symbol.asyncIterator]().next();
    assert.match((await rejects('ERR_ARGUMENT', iterated)).message, words);
  });
}

test('a configuration that is no plain data is refused', async () => {
  const sections = (run: Record<string, unknown>) => ({ datasets: { a: {} }, run });
  assert.match(
    (await rejects('ERR_ARGUMENT', readConfig(sections({ seed: () => 1 })))).message,
    /^the configuration: expected plain values/,
  );
  const { message } = await rejects(
    'ERR_ARGUMENT',
    readConfig({ datasets: { list: { batch_size: 5n, build_info: { storage: 'a.csv' } } }, run: {} }),
  );
  assert.match(message, /batch_size: expected a whole number from 1 to 2147483647, found 5n$/);
});

test('what objects inherit from is no key', async () => {
  for (const key of ['__proto__.x', 'run.__proto__.x', 'datasets.__proto__.x', '__proto__']) {
    const { message } = await rejects('ERR_ARGUMENT', readConfig(file, [`${key}=5`]));
    assert.match(message, /__proto__: is no known key/);
  }
  assert.is(({} as Record<string, unknown>)['x'], undefined);
});

test('an unknown key far from all others is told those that do something', async () => {
  const { message } = await rejects('ERR_ARGUMENT', readConfig(file, ['run.qqqqqqqqqqqqqqqqq=5']));
  assert.match(message, /is no known key; expected one of .*max_epoch/);
  assert.not.match(message, /wandb_log|dist_url/);
});

test('a configuration without data sets is told that first', async () => {
  const empty = join(folder, 'empty.yaml');
  for (const words of ['run: {}\n', 'model: {}\n', 'datasets: {}\n', 'datasets:\nrun: {}\n']) {
    writeFileSync(empty, words);
    const { message } = await rejects('ERR_ARGUMENT', readConfig(empty));
    assert.match(message, /datasets: expected at least one data set, found none$/, words);
  }
  writeFileSync(empty, 'dataset: {}\nrun: {}\n');
  assert.match((await rejects('ERR_ARGUMENT', readConfig(empty))).message, /did you mean datasets\?/);
});

test('two documents in one file are told', async () => {
  const two = join(folder, 'two.yaml');
  writeFileSync(two, `${original}---\n${original}`);
  assert.match((await rejects('ERR_ARGUMENT', readConfig(two))).message, /expected one YAML document, found .* second/);
});

test.run();
