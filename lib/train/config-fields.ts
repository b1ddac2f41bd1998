// Every key that a training configuration may have: the original's sections and keys, and ours. The names are the original's, so that its
// files are read as they are.
import { z } from 'zod';
import { type Known } from '../nearest.js';
import {
  deviceRule,
  deviceWords,
  gpuMemoryRule,
  gpuMemoryWords,
  imageBatchRule,
  imageBatchWords,
  meantDevice,
  visionDeviceRule,
  visionDevices,
  visionDeviceWords,
} from '../options.js';
import { scheduleNames } from './schedule.js';

/** A key's rule. Without a rule: known from the original, without a meaning here. */
export interface Field {
  rule?: z.ZodType;
  /** "expected …" in errors. */
  expected: string;
  /** Of which the nearest is proposed. */
  known?: Known;
  fallback?: unknown;
  needed?: boolean;
  /** A file or folder: `${NAME}` in it is taken from the environment. */
  path?: boolean;
}

/** Keys of a section; `*`: any name (of a data set). */
export interface Section {
  [key: string]: Field | Section;
}

/** The keys that do something; `*` is none. */
export const keysOf = (section: Section): string[] =>
  Object.entries(section).flatMap(([key, node]) => (key === '*' || (isField(node) && !node.rule) ? [] : [key]));

export const isField = (node: Field | Section): node is Field => typeof node['expected'] === 'string';

const field = (expected: string, rule: z.ZodType, more: Omit<Field, 'rule' | 'expected'> = {}): Field => ({
  expected,
  rule,
  ...more,
});
const largest = 2 ** 31 - 1;
const wholeFrom = (least: number) => `a whole number from ${least} to ${largest}`;
/** What sizes and counts are expected to be. */
export const wholeFrom1 = wholeFrom(1);
const whole = (least: number, more: Omit<Field, 'rule' | 'expected'> = {}): Field =>
  field(wholeFrom(least), z.number().int().min(least).max(largest), more);
const from0 = (more: Omit<Field, 'rule' | 'expected'> = {}): Field =>
  field('a number from 0', z.number().min(0).finite(), more);
const words = (...known: string[]) => ({ known, rule: z.enum(known) });
const oneOf = (known: readonly string[], more: Omit<Field, 'rule' | 'expected' | 'known'> = {}): Field =>
  field(`one of ${known.join(', ')}`, words(...known).rule, { known, ...more });
const text = (expected: string, more: Omit<Field, 'rule' | 'expected'> = {}): Field =>
  field(expected, z.string().min(1), more);
const path = (expected: string, more: Omit<Field, 'rule' | 'expected'> = {}): Field =>
  text(expected, { path: true, ...more });
/** What only one value of can be done here. */
const only = (value: boolean): Field => field(`${value}, since nothing else can be done here`, z.literal(value));
const ignored: Field = { expected: 'anything' };
const ignore = (...keys: string[]): Section => Object.fromEntries(keys.map((key) => [key, ignored]));
const share = field('a number above 0 and at most 1', z.number().gt(0).max(1));

const model: Section = {
  path: path('the path of a model file'),
  llm: path('the path of a language model (GGUF)'),
  projection: path('the path of a projection file (GGUF)'),
  init: oneOf(['fresh', 'model'], { fallback: 'fresh' }),
  ckpt: path('the path of a projection: a .pth, a projection file, or a checkpoint or folder of a run'),
  arch: oneOf(['minigpt4', 'mini_gpt4']),
  model_type: oneOf(['pretrain_vicuna0', 'pretrain_vicuna', 'pretrain_llama2']),
  max_txt_len: whole(1, { fallback: 32 }),
  end_sym: field('a text', z.string(), { fallback: '\n' }),
  prompt_path: path('the path of a file with a prompt a line'),
  prompt_template: field('a text with {} in it, once', z.string().regex(/^(?!.*\{\}.*\{\}).*\{\}/s), {
    fallback: '{}',
  }),
  freeze_vit: only(true),
  freeze_qformer: only(true),
  chat_template: only(false),
  ...ignore('vit_model', 'q_former_model', 'llama_model', 'image_size', 'num_query_token', 'drop_path_rate'),
  ...ignore('use_grad_checkpoint', 'use_grad_checkpoint_llm', 'vit_precision', 'has_qformer', 'low_resource'),
  ...ignore('device_8bit', 'prompt', 'max_context_len', 'lora_r', 'lora_alpha', 'lora_target_modules', 'lora_dropout'),
};

/** `blip2_image_train_random_crop` is what the first release's blip2_image_train did. */
export const randomCrop = 'blip2_image_train_random_crop';

const dataset: Section = {
  format: oneOf(['webdataset', 'cc_sbu_align', 'llava', 'list']),
  batch_size: whole(1),
  sample_ratio: field('a number above 0', z.number().gt(0).finite(), { fallback: 1 }),
  vis_processor: {
    train: {
      name: oneOf(['blip2_image_train', 'blip2_image_eval', randomCrop], { fallback: 'blip2_image_train' }),
      image_size: whole(1),
      min_scale: share,
      max_scale: share,
      ...ignore('mean', 'std'),
    },
    eval: ignored,
  },
  text_processor: {
    train: {
      name: oneOf(['blip_caption']),
      prompt: field('a text', z.string(), { fallback: '' }),
      max_words: whole(1, { fallback: 50 }),
    },
    eval: ignored,
  },
  build_info: {
    storage: path(
      'where the pairs are: shards (.tar, with ranges as {00000..00099}), a folder, a .json, .jsonl or .csv',
    ),
    images: path('the folder that picture paths begin in'),
    image_path: path('the folder that picture paths begin in'),
    ann_path: path('the path of a .json file'),
    shuffle_buffer: whole(0, { fallback: 1000 }),
    holdout: whole(0, { fallback: 0 }),
    ...ignore('url', 'md5'),
  },
  ...ignore('data_type'),
};

const run: Section = {
  job_name: field("a text without '/'", z.string().regex(/^[^/\\\0]+$/)),
  lr_sched: oneOf(scheduleNames, { fallback: scheduleNames[0] }),
  init_lr: from0({ needed: true }),
  min_lr: from0({ needed: true }),
  warmup_lr: from0(),
  warmup_steps: whole(0, { fallback: 0 }),
  weight_decay: from0({ fallback: 0.05 }),
  beta2: field('a number from 0, below 1', z.number().min(0).lt(1), { fallback: 0.999 }),
  max_epoch: whole(1, { needed: true }),
  iters_per_epoch: whole(1, { needed: true }),
  accum_grad_iters: whole(1, { fallback: 1 }),
  batch_size_train: whole(1),
  num_workers: whole(0, { fallback: 4 }),
  seed: whole(0, { fallback: 42 }),
  output_dir: path('a folder for the runs'),
  resume_ckpt_path: path('the path of a checkpoint, of a run, or of a folder with runs'),
  evaluate: only(false),
  device: field(deviceWords, deviceRule, { known: meantDevice, fallback: 'auto' }),
  vision_device: field(visionDeviceWords, visionDeviceRule, { known: visionDevices }),
  gpu_memory: field(gpuMemoryWords, gpuMemoryRule),
  image_batch: field(imageBatchWords, imageBatchRule),
  threads: field('a whole number from 1 to 1024', z.number().int().min(1).max(1024)),
  max_rows: whole(1, { fallback: 2048 }),
  max_grad_norm: from0({ fallback: 0 }),
  mix: oneOf(['batch', 'sample'], { fallback: 'batch' }),
  max_pixels: field(`a whole number from 1 to ${Number.MAX_SAFE_INTEGER}`, z.number().int().min(1)),
  feature_cache: field("a folder, or 'off'", z.union([z.string().min(1), z.literal(false)]), {
    fallback: 'off',
    path: true,
  }),
  feature_type: oneOf(['f16', 'f32'], { fallback: 'f16' }),
  checkpoint_every: whole(1),
  keep: whole(1, { fallback: 3 }),
  valid_every: whole(1),
  valid_answers: field(
    'a list of pictures, or of objects with a picture and a prompt',
    z.array(
      z.union([
        z.string().min(1),
        z.strictObject({ picture: z.string().min(1), prompt: z.string().min(1).optional() }),
      ]),
    ),
    { fallback: [] },
  ),
  ...ignore('task', 'runner', 'amp', 'train_splits', 'valid_splits', 'test_splits', 'world_size', 'dist_url'),
  ...ignore('distributed', 'dist_backend', 'wandb_log', 'batch_size_eval', 'log_freq', 'use_dist_eval_sampler'),
};

export const sections: Section = { model, datasets: { '*': dataset }, run, evaluation_datasets: ignored };
