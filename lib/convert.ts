// Turns checkpoints as people have them into one model file: plans every tensor first, so that mistakes show before anything is written.
import { lstat, readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { addon, type GgufKey, type TypeName } from './addon.js';
import { readSizeConfig, type SizeConfig } from './convert/config.js';
import { u32, text, texts } from './convert/keys.js';
import { planAsItIs, planGguf, planLlama, type LlmPlan } from './convert/llama.js';
import {
  LAYOUTS,
  SINGLE_PARTS,
  WRITABLE_TYPES,
  type ConvertNative,
  type ConvertOptions,
  type ConvertResult,
  type WritableType,
} from './convert/options.js';
import { planProjection, type Neighbours, type ProjectionPlan } from './convert/projection.js';
import { planQformer } from './convert/qformer.js';
import type { PlannedTensor } from './convert/rows.js';
import { hashSources, type Source } from './convert/sources.js';
import { planTokenizer } from './convert/tokenizer.js';
import { FILE_TYPES, bytesOf, isGrouped, partType } from './convert/types.js';
import { planPostNorm, planVit } from './convert/vit.js';
import { Weights } from './convert/weights.js';
import { MiniGptError, abortedError } from './errors.js';
import { kindOf, openCheckpoint } from './formats/checkpoint.js';
import { FileLog } from './formats/file-log.js';
import { openGguf, type GgufFile } from './formats/gguf.js';
import { toFloat32 } from './formats/numbers.js';
import type { CheckedRegion, Checkpoint } from './formats/tensor.js';
import { nearest } from './nearest.js';
import { templateNames } from './prompt.js';

export type { ConvertOptions, ConvertProgress, ConvertResult } from './convert/options.js';

/**
 * Converts. Errors: ERR_ARGUMENT (options that do not go together), ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT,
 * ERR_FILE_CHANGED, ERR_MISSING_TENSOR, ERR_SHAPE, ERR_UNSUPPORTED, ERR_ABORTED. Nothing is left at `out` then, and what was there before stays.
 */
export async function convert(options: ConvertOptions, native: ConvertNative = addon): Promise<ConvertResult> {
  checkOptions(options);
  const conversion = new Conversion(options, native);
  try {
    return await conversion.log.follow(() => conversion.run());
  } finally {
    await conversion.close();
  }
}

/** Bytes that tensors in groups of rows begin at a multiple of: `native/core/gguf_layout.h`. */
const GROUP_ALIGNMENT = 64;

interface Head {
  keys: GgufKey[];
  architecture: string;
  sources: string[];
}

class Conversion {
  /** Every file that is read. */
  readonly log = new FileLog();
  readonly #options: ConvertOptions;
  readonly #native: ConvertNative;
  readonly #type: WritableType;
  readonly #opened = new Map<string, Checkpoint>();
  #gguf: GgufFile | undefined;
  readonly #keys: GgufKey[] = [];
  readonly #tensors: PlannedTensor[] = [];
  readonly #otherSources: Source[] = [];
  readonly #warnings: string[] = [];

  constructor(options: ConvertOptions, native: ConvertNative) {
    this.#options = options;
    this.#native = native;
    this.#type = (options.type ?? 'f16') as WritableType;
  }

  async close(): Promise<void> {
    for (const checkpoint of this.#opened.values()) await checkpoint.close();
    await this.#gguf?.close();
  }

  async run(): Promise<ConvertResult> {
    const { only, model } = this.#options;
    if (model !== undefined) {
      if ((await kindOf(model)) !== 'gguf')
        throw new MiniGptError('ERR_ARGUMENT', `--model: expected a model file (GGUF), found ${model}, which is none`);
      this.#gguf = await openGguf(model);
      this.#tensors.push(...planAsItIs(this.#gguf, 'model'));
      return await this.#write(await this.#target());
    }
    const config = this.#options.config === undefined ? {} : await readSizeConfig(this.#options.config);
    const llm = only === undefined || only === 'llm' ? await this.#planLlm() : undefined;
    if (only !== 'llm') await this.#planVision(config, llm);
    if (llm) {
      this.#keys.push(...llm.keys);
      this.#tensors.push(...llm.tensors);
    }
    return await this.#write(await this.#target());
  }

  async #open(path: string, role: string): Promise<Weights> {
    const place = resolve(path);
    let checkpoint = this.#opened.get(place);
    if (!checkpoint) this.#opened.set(place, (checkpoint = await openCheckpoint(path)));
    return new Weights(checkpoint, role);
  }

  async #planLlm(): Promise<LlmPlan> {
    const { llm, deltaBase } = this.#options;
    const type = this.#options.llmType ?? partType('llm', this.#type);
    const kind = await kindOf(llm!);
    if (kind === 'gguf') {
      const given =
        this.#options.llmType !== undefined
          ? 'a type for the language model'
          : deltaBase !== undefined
            ? "a delta's base"
            : undefined;
      if (given)
        throw new MiniGptError(
          'ERR_ARGUMENT',
          `${llm} is a GGUF file, which is taken as it is; it goes with no ${given.replace(/^a /, '')}`,
        );
      this.#gguf = await openGguf(llm!);
      return planGguf(this.#gguf, 'llm');
    }
    if (kind !== 'folder') {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${llm} is a single file of weights; expected the folder it lies in, with config.json and tokenizer.model beside it, or a GGUF file`,
      );
    }
    const weights = await this.#open(llm!, 'llm');
    const base = deltaBase === undefined ? undefined : await this.#open(deltaBase, 'delta-base');
    const plan = await planLlama(weights, base, type, this.#native);
    const tokenizer = await planTokenizer(base ? [llm!, deltaBase!] : [llm!], plan.vocabulary, this.#native);
    plan.keys.push(...tokenizer.keys);
    this.#otherSources.push({ role: 'tokenizer', file: tokenizer.file });
    this.#warnings.push(...plan.warnings);
    return plan;
  }

  async #planVision(config: SizeConfig, llm: LlmPlan | undefined): Promise<void> {
    const { only, llm: llmPath } = this.#options;
    const projection =
      this.#options.projection === undefined ? undefined : await this.#open(this.#options.projection, 'projection');
    const around: Neighbours = { llm: llm && { width: llm.width, path: llmPath! } };
    if (only !== 'projection') {
      const withQformer = this.#options.qformer !== undefined;
      const vit = await this.#open(this.#options.vit!, 'vit');
      const qformer = withQformer ? await this.#open(this.#options.qformer!, 'qformer') : undefined;
      if (qformer && config.qformer === null) {
        throw new MiniGptError(
          'ERR_ARGUMENT',
          `${this.#options.config} says there is no Q-Former, but ${qformer.path} was given as one`,
        );
      }
      if (!qformer && config.qformer) {
        throw new MiniGptError(
          'ERR_ARGUMENT',
          `${this.#options.config} describes a Q-Former, but none was given (--qformer)`,
        );
      }
      const vitPlan = planVit(vit, config.vit, this.#options.vitType ?? partType('vit', this.#type));
      this.#keys.push(...vitPlan.keys);
      this.#tensors.push(...vitPlan.tensors);
      // Where there is a Q-Former, the norm belongs to it: other files' may be of another training.
      const norms = [qformer, projection, qformer && vit].filter((weights) => weights !== undefined);
      this.#tensors.push(...planPostNorm(norms, vitPlan.width, withQformer));
      around.vitWidth = vitPlan.width;
      around.qformerWidth = null;
      if (qformer) {
        const type = this.#options.qformerType ?? partType('qformer', this.#type);
        const plan = planQformer(qformer, config.qformer, vitPlan.width, type);
        this.#keys.push(...plan.keys);
        this.#tensors.push(...plan.tensors);
        around.qformerWidth = plan.width;
      }
      this.#keys.push(
        text('minigpt4.variant', withQformer ? 'minigpt4-vicuna0' : 'minigpt4-llama2'),
        text('minigpt4.template', this.#options.template ?? (withQformer ? 'vicuna0' : 'llama2')),
      );
    }
    if (projection) {
      const plan: ProjectionPlan = planProjection(projection, around, config);
      this.#keys.push(...plan.keys);
      this.#tensors.push(...plan.tensors);
    }
  }

  /**
   * The path to write, behind symbolic links. Refuses a file that is being read, whatever its path, and a place where no file can be
   * written, before hours of work. Errors: ERR_ARGUMENT, ERR_FILE_NOT_FOUND.
   */
  async #target(): Promise<string> {
    const { out } = this.#options;
    const place = await behindLinks(out);
    const folder = dirname(place);
    if (!(await stat(folder).catch(() => undefined))?.isDirectory()) {
      throw new MiniGptError('ERR_FILE_NOT_FOUND', `${out} cannot be written: there is no directory ${folder}`);
    }
    const found = await stat(place, { bigint: true }).catch(() => undefined);
    if (found?.isDirectory())
      throw new MiniGptError('ERR_ARGUMENT', `${out} is a directory; expected the name of the file to write`);
    if (found && !found.isFile())
      throw new MiniGptError('ERR_ARGUMENT', `${out} is no regular file; expected the name of a file to write`);
    const source = found && this.log.pathOf(found);
    if (source !== undefined) {
      const words = source === out ? out : `${out}, the same file as ${source},`;
      throw new MiniGptError('ERR_ARGUMENT', `${words} is one of the sources; give another name for the result`);
    }
    return join(await realpath(folder), basename(place));
  }

  /** The files that the planned tensors come from, each once a role. */
  #sources(): Source[] {
    const sources = new Map<string, Source>();
    for (const source of [...this.#tensors.flatMap((tensor) => tensor.sources), ...this.#otherSources]) {
      sources.set(`${source.role} ${source.file}`, source);
    }
    return [...sources.values()];
  }

  /** What the file says of itself, with the sources' checksums. */
  async #newHead(): Promise<Head> {
    const { out, only, signal, onProgress } = this.#options;
    const regions: CheckedRegion[] = [];
    for (const checkpoint of this.#opened.values()) regions.push(...((await checkpoint.regions?.()) ?? []));
    const sources = await hashSources(this.#sources(), regions, signal, (done, total, what) =>
      onProgress?.({ stage: 'hash', done, total, what }),
    );
    const architecture = only === 'llm' ? 'llama' : only === 'projection' ? 'minigpt4-projection' : 'minigpt4';
    const labelled =
      only === 'projection'
        ? 'f32'
        : (((only === 'vision' ? undefined : this.#options.llmType) ?? this.#type) as WritableType);
    const fileType = this.#gguf?.keys.find((entry) => entry.key === 'general.file_type')?.value;
    const keys: GgufKey[] = [
      text('general.architecture', architecture),
      text('general.name', this.#options.name ?? basename(out, extname(out))),
      u32('general.file_type', typeof fileType === 'number' ? fileType : FILE_TYPES[labelled]),
      u32('general.quantization_version', 2),
      ...this.#keys,
      texts('minigpt4.sources', sources),
    ];
    return { keys, architecture, sources };
  }

  /** All that a model file says of itself. */
  #headOf(file: GgufFile): Head {
    const { name } = this.#options;
    const value = (key: string): GgufKey['value'] | undefined => file.keys.find((entry) => entry.key === key)?.value;
    const [architecture, sources] = [value('general.architecture'), value('minigpt4.sources')];
    const keys = file.keys.filter(
      ({ key }) => key !== 'general.alignment' && (key !== 'general.name' || name === undefined),
    );
    return {
      keys: name === undefined ? keys : [...keys, text('general.name', name)],
      architecture: typeof architecture === 'string' ? architecture : '',
      sources: Array.isArray(sources) ? sources.map(String) : [],
    };
  }

  async #write(target: string): Promise<ConvertResult> {
    const { out, layout, model, signal, onProgress } = this.#options;
    const { keys, architecture, sources } = model === undefined ? await this.#newHead() : this.#headOf(this.#gguf!);
    const grouped = (tensor: PlannedTensor): boolean => layout === 'cpu' && isGrouped(tensor.name, tensor.shape);
    keys.push(u32('general.alignment', this.#tensors.some(grouped) ? GROUP_ALIGNMENT : 32));
    const plan = this.#tensors.map((tensor) => {
      const { name, type, shape } = tensor;
      return { name, type, shape: [...shape], grouped: grouped(tensor) };
    });
    const total = plan.reduce((sum, { shape }) => sum + count(shape), 0);
    const writer = this.#native.createGgufWriter(target, keys, plan);
    try {
      let done = 0;
      for (const tensor of this.#tensors) {
        onProgress?.({ stage: 'write', done, total, what: tensor.name });
        for await (const { source, values } of ahead(tensor.values())) {
          if (signal?.aborted) throw abortedError(signal);
          const bytes = aligned(values);
          await writer.write(source, bytes).catch((error: unknown) => {
            throw unfit(tensor, source, bytes) ?? error;
          });
        }
        done += count(tensor.shape);
      }
      if (signal?.aborted) throw abortedError(signal);
      await this.log.check();
      await writer.finish();
      onProgress?.({ stage: 'write', done: total, total, what: '' });
    } catch (error) {
      writer.discard();
      throw error;
    }
    return {
      path: out,
      bytes: (await stat(target)).size,
      architecture,
      tensors: plan.length,
      parameters: total,
      types: totals(this.#tensors),
      sources,
      warnings: this.#warnings,
    };
  }
}

/** Where a path leads that may be a symbolic link to a file that need not be there yet. Errors: ERR_ARGUMENT (links in a circle). */
async function behindLinks(path: string): Promise<string> {
  let place = resolve(path);
  for (let followed = 0; followed < 40; followed++) {
    const found = await lstat(place).catch(() => undefined);
    if (!found?.isSymbolicLink()) return place;
    place = resolve(dirname(place), await readlink(place));
  }
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `${path} is a symbolic link that leads to no end; expected the name of a file to write`,
  );
}

/** The error of values that blocks cannot hold, undefined where these are none. */
function unfit(tensor: PlannedTensor, source: TypeName, values: Uint8Array): MiniGptError | undefined {
  if (source !== 'f32' && source !== 'f16' && source !== 'bf16') return undefined;
  const bad = toFloat32(source, values).find((value) => !Number.isFinite(value));
  if (bad === undefined) return undefined;
  return new MiniGptError(
    'ERR_FILE_FORMAT',
    `${tensor.origin} holds the value ${bad}, which ${tensor.type} cannot hold (${tensor.name}); expected finite numbers`,
  );
}

/** The same pieces, the next one already being read while one is used. */
async function* ahead<T>(pieces: AsyncIterable<T>): AsyncGenerator<T> {
  const iterator = pieces[Symbol.asyncIterator]();
  let next = iterator.next();
  for (;;) {
    const piece = await next;
    if (piece.done) return;
    next = iterator.next();
    next.catch(() => {}); // told when it is awaited, or not needed any more
    yield piece.value;
  }
}

/** Bytes that begin where a 4-byte number may. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 ? Uint8Array.from(bytes) : bytes;
}

function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function totals(tensors: readonly PlannedTensor[]): ConvertResult['types'] {
  const byType = new Map<TypeName, { type: TypeName; tensors: number; bytes: number }>();
  for (const { type, shape } of tensors) {
    const sum = byType.get(type) ?? { type, tensors: 0, bytes: 0 };
    sum.tensors++;
    sum.bytes += bytesOf(type, shape);
    byType.set(type, sum);
  }
  return [...byType.values()].sort((a, b) => b.bytes - a.bytes);
}

/** Which inputs each kind of file is made of: what it needs, and what it may have besides. */
const INPUTS = {
  bundle: {
    needs: ['vit', 'projection', 'llm'],
    may: ['qformer', 'deltaBase', 'config', 'vitType', 'qformerType', 'llmType', 'template'],
  },
  vision: { needs: ['vit'], may: ['qformer', 'projection', 'config', 'vitType', 'qformerType', 'template'] },
  llm: { needs: ['llm'], may: ['deltaBase', 'llmType', 'config'] },
  projection: { needs: ['projection'], may: ['config'] },
  model: { needs: ['model', 'layout'], may: [] },
} as const;

const flag = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Wrong use, told before any file is opened. Errors: ERR_ARGUMENT. */
function checkOptions(options: ConvertOptions): void {
  const fail = (why: string): never => {
    throw new MiniGptError('ERR_ARGUMENT', why);
  };
  const oneOf = (name: string, value: string | undefined, known: readonly string[]): void => {
    if (value === undefined || known.includes(value)) return;
    const meant = nearest(value, known);
    fail(
      `${flag(name)}: expected one of ${known.join(', ')}, found '${value}'${meant ? ` (did you mean ${meant}?)` : ''}`,
    );
  };
  oneOf('only', options.only, SINGLE_PARTS);
  for (const name of ['type', 'vitType', 'qformerType', 'llmType'] as const) oneOf(name, options[name], WRITABLE_TYPES);
  oneOf('template', options.template, templateNames);
  oneOf('layout', options.layout, LAYOUTS);
  if (!options.out) fail('--out: expected the name of the file to write');
  const kind = options.model !== undefined ? 'model' : (options.only ?? 'bundle');
  const { needs, may } = INPUTS[kind];
  const missing = needs.filter((name) => !options[name]);
  const what = kind === 'model' ? '--model' : options.only ? `--only ${options.only}` : 'a bundle';
  if (missing.length)
    fail(`${what} needs ${missing.map(flag).join(', ')}${kind === 'bundle' ? '; --only writes one part alone' : ''}`);
  const inputs = [
    ...INPUTS.bundle.needs,
    ...INPUTS.bundle.may,
    ...(kind === 'model' ? (['type', 'only'] as const) : []), // which a file that is taken as it is has settled
  ];
  const extra = inputs.filter(
    (name) =>
      options[name] !== undefined &&
      !(needs as readonly string[]).includes(name) &&
      !(may as readonly string[]).includes(name),
  );
  if (extra.length) fail(`${what} takes no ${extra.map(flag).join(', ')}`);
  if (options.qformerType && !options.qformer) fail('--qformer-type needs --qformer');
}
