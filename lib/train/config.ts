// A training configuration: YAML with the original's sections, or the same as an object; overrides; everything checked, with the line
// that is wrong.
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { LineCounter, isMap, isNode, isPair, parse, parseDocument, type Document } from 'yaml';
import { packageRoot } from '../addon.js';
import type { DataFormat, DatasetConfig } from '../data/options.js';
import { MiniGptError } from '../errors.js';
import { systemError } from '../formats/input-file.js';
import { wishWithoutGpu } from '../load-options.js';
import { meantBy, nearest } from '../nearest.js';
import { show, type Device } from '../options.js';
import { isField, keysOf, randomCrop, sections, wholeFrom1, type Field, type Section } from './config-fields.js';
import { imageMark } from './examples.js';
import type { Schedule } from './schedule.js';

/** The section `model`, checked; paths are absolute. */
export interface ModelSection {
  path?: string;
  llm?: string;
  projection?: string;
  init: 'fresh' | 'model';
  ckpt?: string;
  arch?: string;
  model_type?: string;
  max_txt_len: number;
  end_sym: string;
  prompt_path?: string;
  prompt_template: string;
}

/** The section `run`, checked. */
export interface RunSection extends Schedule {
  job_name: string;
  weight_decay: number;
  beta2: number;
  accum_grad_iters: number;
  num_workers: number;
  seed: number;
  output_dir: string;
  resume_ckpt_path?: string;
  device: Device;
  vision_device?: 'cpu' | 'gpu';
  gpu_memory?: number;
  image_batch?: number;
  threads?: number;
  max_rows: number;
  max_grad_norm: number;
  mix: 'batch' | 'sample';
  max_pixels?: number;
  /** undefined: off. */
  feature_cache?: string;
  feature_type: 'f16' | 'f32';
  checkpoint_every: number;
  keep: number;
  valid_every: number;
  valid_answers: { picture: string; prompt?: string }[];
}

export interface TrainConfig {
  /** The file, or what the configuration was given as. */
  source: string;
  model: ModelSection;
  /** Lines that a batch draws one of; none in stage 1. */
  prompts: string[];
  datasets: DatasetConfig[];
  /** By data set: the picture size that it was written for. */
  imageSizes: Record<string, number>;
  run: RunSection;
  /** Keys of the original that mean nothing here. */
  ignored: string[];
  /** The sections with defaults and absolute paths, to be written down. */
  resolved: Record<string, unknown>;
  /** The same with paths as they were given: what two runs are compared by. */
  plain: Record<string, unknown>;
}

/** The sections as an object of JavaScript. */
export interface TrainSections {
  model?: Record<string, unknown>;
  datasets: Record<string, unknown>;
  run: Record<string, unknown>;
  [section: string]: unknown;
}

/** Formats of the original's data sets. */
const formatOf: Record<string, DataFormat> = {
  laion: 'webdataset',
  cc_sbu: 'webdataset',
  cc_sbu_align: 'cc_sbu_align',
};

/**
 * Reads and checks a configuration. `overrides`: `run.max_epoch=1`, values as in YAML. Errors: ERR_FILE_NOT_FOUND, ERR_ARGUMENT with file and
 * line, the key, what was expected and what was found, or the nearest known key.
 */
export async function readConfig(
  source: string | TrainSections,
  overrides: readonly string[] = [],
): Promise<TrainConfig> {
  const reader = await ConfigReader.open(source);
  for (const override of overrides) reader.override(override);
  return reader.finish();
}

class ConfigReader {
  readonly #source: string;
  readonly #file: string | undefined;
  readonly #value: Record<string, unknown>;
  readonly #document: Document | undefined;
  readonly #lines: LineCounter;
  readonly #overridden = new Set<string>();
  readonly #ignored: string[] = [];

  private constructor(file: string | undefined, value: unknown, document?: Document, lines = new LineCounter()) {
    this.#source = file ?? 'the configuration';
    this.#file = file;
    this.#document = document;
    this.#lines = lines;
    if (!isObject(value)) this.#fail([], `expected the sections ${keysOf(sections).join(', ')}, found ${show(value)}`);
    this.#value = value;
  }

  static async open(source: string | TrainSections): Promise<ConfigReader> {
    if (typeof source !== 'string') return new ConfigReader(undefined, cloned(source));
    let words: string;
    try {
      words = await readFile(source, 'utf8');
    } catch (error) {
      throw systemError(source, error);
    }
    const lines = new LineCounter();
    const document = parseDocument(words, { lineCounter: lines });
    const [problem] = document.errors;
    if (problem) {
      const line = problem.linePos?.[0].line;
      const why =
        problem.code === 'MULTIPLE_DOCS'
          ? 'expected one YAML document, found the beginning of a second one (---)'
          : `no YAML: ${problem.message.split('\n')[0]!}`;
      throw new MiniGptError('ERR_ARGUMENT', `${source}${line === undefined ? '' : `:${line}`}: ${why}`);
    }
    try {
      return new ConfigReader(source, document.toJS(), document, lines);
    } catch (error) {
      if (error instanceof ReferenceError) throw new MiniGptError('ERR_ARGUMENT', `${source}: ${error.message}`);
      throw error;
    }
  }

  override(words: string): void {
    const [, key, value] = /^([^=\s]+)=(.*)$/s.exec(words) ?? [];
    if (key === undefined || value === undefined)
      throw new MiniGptError('ERR_ARGUMENT', `--set: expected key=value (as run.max_epoch=1), found ${show(words)}`);
    let parsed: unknown;
    try {
      parsed = parse(value);
    } catch (error) {
      throw new MiniGptError('ERR_ARGUMENT', `--set ${words}: ${(error as Error).message.split('\n')[0]!}`);
    }
    let at: Record<string, unknown> = this.#value;
    const keys = key.split('.');
    for (const part of keys.slice(0, -1)) {
      if (!Object.hasOwn(at, part) || at[part] === null) setOwn(at, part, {});
      const next = at[part];
      if (!isObject(next))
        throw new MiniGptError('ERR_ARGUMENT', `--set ${words}: ${part} is ${show(next)}, expected a section`);
      at = next;
    }
    setOwn(at, keys.at(-1)!, parsed);
    this.#overridden.add(key);
  }

  async finish(): Promise<TrainConfig> {
    for (const key of Object.keys(this.#value)) this.#nodeOf(sections, key, []);
    this.#datasetNames();
    const plain = this.#section(sections, this.#value, []);
    this.#finishRun(plain['run'] as Record<string, unknown>);
    const model = plain['model'] as ModelSection;
    const resolved = structuredClone(plain);
    const sectionOf = (name: string) => resolved[name] as Record<string, unknown>;
    const prompts = await this.#prompts(model, sectionOf('model'));
    this.#paths(sections, resolved, []);
    const datasets = Object.entries(sectionOf('datasets')).map(([name, given]) =>
      this.#dataset(name, given as Record<string, unknown>, sectionOf('run')),
    );
    const imageSizes = Object.fromEntries(
      Object.entries(sectionOf('datasets')).flatMap(([name, given]) => {
        const { vis_processor: vis } = given as { vis_processor?: { train?: { image_size?: number } } };
        return vis?.train?.image_size === undefined ? [] : [[name, vis.train.image_size]];
      }),
    );
    const {
      feature_cache: cache,
      valid_answers: asked,
      ...run
    } = sectionOf('run') as Record<string, unknown> & {
      feature_cache: string | false;
      valid_answers: (string | { picture: string; prompt?: string })[];
    };
    const answers = asked.map((answer, i) => {
      const { picture, ...more } = typeof answer === 'string' ? { picture: answer } : answer;
      return { picture: this.#path(picture, ['run', 'valid_answers', String(i)]), ...more };
    });
    sectionOf('run')['valid_answers'] = answers;
    return {
      source: this.#source,
      model: sectionOf('model') as unknown as ModelSection,
      prompts,
      datasets,
      imageSizes,
      run: {
        ...(run as unknown as RunSection),
        ...(cache === 'off' || cache === false ? {} : { feature_cache: cache }),
        valid_answers: answers,
      },
      ignored: this.#ignored,
      resolved,
      plain,
    };
  }

  /** The section with defaults, without ignored keys. */
  #section(section: Section, given: Record<string, unknown>, at: string[]): Record<string, unknown> {
    const checked: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(given)) {
      const here = [...at, key];
      const node = this.#nodeOf(section, key, at);
      if (value === null || value === undefined) continue; // as if it were not there, as `resume_ckpt_path: null`
      if (isField(node)) this.#field(node, value, here, checked);
      else if (isObject(value)) checked[key] = this.#section(node, value, here);
      else {
        const keys = '*' in node ? 'a data set for each name' : keysOf(node).join(', ');
        this.#fail(here, `expected a section with ${keys}, found ${show(value)}`);
      }
    }
    for (const [key, node] of Object.entries(section)) {
      if (key === '*' || Object.hasOwn(checked, key)) continue;
      if (!isField(node)) {
        if (at.length === 0 || at[0] === 'datasets') checked[key] = this.#section(node, {}, [...at, key]);
      } else if (node.needed) this.#fail([...at, key], `expected ${node.expected}, found nothing`);
      else if (node.fallback !== undefined) checked[key] = structuredClone(node.fallback);
    }
    return checked;
  }

  /** A key's rule or section. Error: no such key. */
  #nodeOf(section: Section, key: string, at: readonly string[]): Field | Section {
    if (Object.hasOwn(section, key)) return section[key]!;
    // as a data set's name it would set what objects inherit from
    if (section['*'] !== undefined && key !== '__proto__') return section['*'];
    const meant = nearest(key, Object.keys(section));
    const advice = meant
      ? `did you mean ${[...at, meant].join('.')}?`
      : section['*'] === undefined
        ? `expected one of ${keysOf(section).join(', ')}`
        : 'expected another name';
    return this.#fail([...at, key], `is no known key; ${advice}`);
  }

  #field(node: Field, value: unknown, at: string[], checked: Record<string, unknown>): void {
    if (!node.rule) {
      this.#ignored.push(at.join('.'));
      return;
    }
    if (node.path && value === '') return; // the original's way to say none
    if (!node.rule.safeParse(value).success) {
      const meant = typeof value === 'string' && node.known ? meantBy(value, node.known) : undefined;
      this.#fail(at, `expected ${node.expected}, found ${show(value)}${meant ? ` (did you mean ${meant}?)` : ''}`);
    }
    checked[at.at(-1)!] = value;
  }

  /** Told before any other missing key: who has none does not know yet what a configuration is. */
  #datasetNames(): void {
    const given = this.#value['datasets'] ?? {};
    if (isObject(given) && Object.values(given).every((value) => value === null || value === undefined))
      this.#fail(['datasets'], 'expected at least one data set, found none');
  }

  /** Defaults that depend on other keys, and what keys must agree on. */
  #finishRun(run: Record<string, unknown>): void {
    const { iters_per_epoch: perEpoch, accum_grad_iters: accumulated } = run as unknown as RunSection;
    if (perEpoch % accumulated !== 0) {
      this.#fail(
        ['run', 'accum_grad_iters'],
        `expected a divisor of iters_per_epoch (${perEpoch}), so that epochs end with a step, found ${accumulated}`,
      );
    }
    const { device, vision_device: visionDevice, gpu_memory: gpuMemory } = run as unknown as RunSection;
    const wishes = { device, ...(visionDevice ? { visionDevice } : {}), ...(gpuMemory ? { gpuMemory } : {}) };
    const wrong = wishWithoutGpu(wishes, (key) => `run.${snakeCase(key)}`);
    if (wrong !== undefined)
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${this.#where(['run', visionDevice === 'gpu' ? 'vision_device' : 'gpu_memory'])}${wrong}`,
      );
    run['warmup_lr'] ??= run['init_lr'];
    run['job_name'] ??= this.#file === undefined ? 'train' : basename(this.#file).replace(/\.ya?ml$/, '');
    run['output_dir'] ??= join('output', String(run['job_name']));
    run['checkpoint_every'] ??= perEpoch / accumulated;
    run['valid_every'] ??= run['checkpoint_every'];
  }

  /** Path fields made absolute, in place. */
  #paths(section: Section, given: Record<string, unknown>, at: string[]): void {
    for (const [key, value] of Object.entries(given)) {
      const node = Object.hasOwn(section, key) ? section[key]! : section['*']!;
      if (!isField(node)) this.#paths(node, value as Record<string, unknown>, [...at, key]);
      else if (
        node.path &&
        typeof value === 'string' &&
        !(key === 'feature_cache' && value === 'off') &&
        key !== 'prompt_path'
      )
        given[key] = this.#path(value, [...at, key]);
    }
  }

  #path(words: string, at: string[]): string {
    return resolve(this.#expanded(words, at));
  }

  #expanded(words: string, at: string[]): string {
    return words.replace(/\$\{([^}]*)\}/g, (_, name: string) => {
      const value = process.env[name];
      if (!value) return this.#fail(at, `expected the environment's ${name} to be set (${words}), found none`);
      return value;
    });
  }

  #dataset(name: string, given: Record<string, unknown>, run: Record<string, unknown>): DatasetConfig {
    const {
      build_info: info,
      vis_processor: vis,
      text_processor: words,
      ...rest
    } = given as unknown as {
      format?: DataFormat;
      batch_size?: number;
      sample_ratio: number;
      vis_processor: { train: { name: string; min_scale?: number; max_scale?: number } };
      text_processor: { train: { name?: string; prompt: string; max_words: number } };
      build_info: Record<'storage' | 'images' | 'image_path' | 'ann_path', string | undefined> & {
        shuffle_buffer: number;
        holdout: number;
      };
    };
    const at = ['datasets', name];
    const storage = info.storage ?? info.ann_path;
    if (storage === undefined)
      this.#fail([...at, 'build_info', 'storage'], 'expected where the pairs are, found nothing');
    const batchSize = rest.batch_size ?? (run['batch_size_train'] as number | undefined);
    if (batchSize === undefined) this.#fail([...at, 'batch_size'], `expected ${wholeFrom1}, found nothing`);
    const images = info.images ?? info.image_path;
    const format = rest.format ?? (Object.hasOwn(formatOf, name) ? formatOf[name]! : formatOfStorage(storage));
    const train = vis.train;
    const [minScale, maxScale] = [train.min_scale ?? 0.5, train.max_scale ?? 1];
    if (minScale > maxScale)
      this.#fail(
        [...at, 'vis_processor', 'train', 'min_scale'],
        `expected at most max_scale (${maxScale}), found ${minScale}`,
      );
    if (train.name !== randomCrop)
      for (const key of ['min_scale', 'max_scale'] as const)
        if (train[key] !== undefined) this.#ignored.push([...at, 'vis_processor.train', key].join('.'));
    // as in the original, whose reader of this format never calls the text processor
    const asTheyAre = words.train.name === undefined || format === 'cc_sbu_align';
    return {
      name,
      format,
      storage,
      ...(images === undefined ? {} : { images }),
      batchSize,
      sampleRatio: rest.sample_ratio,
      ...(train.name === randomCrop ? { crop: { minScale, maxScale } } : {}),
      ...(asTheyAre ? {} : { caption: { maxWords: words.train.max_words, prompt: words.train.prompt } }),
      shuffleBuffer: info.shuffle_buffer,
      holdout: info.holdout,
    };
  }

  /** Lines of prompt_path that have a picture; the file is looked for beside the configuration, here, and among the package's own. */
  async #prompts(model: ModelSection, resolved: Record<string, unknown>): Promise<string[]> {
    if (model.prompt_path === undefined) return [];
    const at = ['model', 'prompt_path'];
    const path = this.#expanded(model.prompt_path, at);
    const folders = [...(this.#file === undefined ? [] : [dirname(this.#file)]), '.', join(packageRoot, 'configs')];
    const tried = new Set(folders.map((folder) => resolve(folder, path)));
    for (const file of tried) {
      let lines: string[];
      try {
        lines = (await readFile(file, 'utf8')).split(/\r?\n/);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
        throw systemError(file, error);
      }
      const prompts = lines.filter((line) => line.includes(imageMark));
      if (prompts.length === 0) this.#fail(at, `expected lines with ${imageMark} in ${file}, found none`);
      const twice = prompts.find((line) => line.split(imageMark).length > 2);
      if (twice !== undefined) this.#fail(at, `expected ${imageMark} once a line in ${file}, found ${show(twice)}`);
      resolved['prompt_path'] = file;
      return prompts;
    }
    throw new MiniGptError(
      'ERR_FILE_NOT_FOUND',
      `${this.#where(at)}model.prompt_path: no such file: looked for ${[...tried].join(', ')}`,
    );
  }

  #fail(at: readonly string[], why: string): never {
    const key = at.length > 0 ? `${at.join('.')}: ` : '';
    throw new MiniGptError('ERR_ARGUMENT', `${this.#where(at)}${key}${why}`);
  }

  /** 'configs/stage1.yaml:12: ', or the override. */
  #where(at: readonly string[]): string {
    for (let length = at.length; length > 0; length--)
      if (this.#overridden.has(at.slice(0, length).join('.'))) return '--set ';
    const line = this.#line(at);
    const key = at.join('.');
    // a section that only an override has
    if (line === undefined && [...this.#overridden].some((other) => other.startsWith(`${key}.`))) return '--set ';
    return `${this.#source}${line === undefined ? '' : `:${line}`}: `;
  }

  /** The line of a key, or of the section that lacks it. */
  #line(at: readonly string[]): number | undefined {
    let node: unknown = this.#document?.contents;
    let offset: number | undefined;
    for (const key of at) {
      if (!isMap(node)) break;
      const pair = node.items.find((item) => isPair(item) && isNode(item.key) && String(item.key) === key);
      if (!pair) break;
      if (isNode(pair.key) && pair.key.range) offset = pair.key.range[0];
      node = pair.value;
    }
    return offset === undefined ? undefined : this.#lines.linePos(offset).line;
  }
}

/** Told by the name: it may have ranges, or not be there yet. */
function formatOfStorage(storage: string): DataFormat {
  if (/\.tar$/i.test(storage)) return 'webdataset';
  if (/\.json$/i.test(storage)) return 'llava';
  return /\.(csv|tsv|jsonl|ndjson)$/i.test(storage) ? 'list' : 'cc_sbu_align';
}

/** An object's own copy. Errors: ERR_ARGUMENT (it holds a function, or a getter that throws). */
function cloned(source: TrainSections): unknown {
  try {
    return structuredClone(source);
  } catch (error) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `the configuration: expected plain values in its sections, as YAML has them, found what cannot be copied (${(error as Error).message.slice(0, 200)})`,
      { cause: error },
    );
  }
}

/** Also where the key is one that objects inherit, as `__proto__`. */
function setOwn(object: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
