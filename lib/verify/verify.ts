// Runs every stage of a fixture directory on this machine and compares it with the reference's numbers.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { addon, type NativeImage, type NativeModel, type NativePromptPart, type TypeName } from '../addon.js';
import { convert } from '../convert.js';
import type { WritableType } from '../convert/options.js';
import { MiniGptError } from '../errors.js';
import { generateGreedy } from '../generate.js';
import { readPicture, type DecodedPicture } from '../image.js';
import { defaultPrompt } from '../model.js';
import type { LoadOptions } from '../options.js';
import { renderPrompt, templateOf, withImage, withQuestion } from '../prompt.js';
import { bytesOf, floatsOf, openFixture, type Fixture } from './fixture.js';
import {
  compareIds,
  elementError,
  largestDifference,
  relativeError,
  result,
  squaredError,
  worstCosineDistance,
  type StageResult,
} from './measure.js';
import { tolerance, type Tolerance } from './tolerance.js';
import { verifyTraining } from './training.js';

/** What computes, as MiniGPT4.load() takes it. */
export type ComputingOptions = Pick<
  LoadOptions,
  'device' | 'gpuLayers' | 'visionDevice' | 'gpuMemory' | 'threads' | 'cpuLevel'
>;

export interface VerifyOptions extends ComputingOptions {
  /** Type of the converted weights. Default: 'f32'. */
  type?: WritableType;
  /** Told what computes, and how far it may be from the reference. */
  onDevice?: (device: string, allowed: Tolerance) => void;
  /** Told each result as it comes. */
  onResult?: (result: StageResult) => void;
}

/** Three float32 roundings of a pixel: (v / 255 - mean) / std, 3 / 2^24 and the constants' own; relative to the largest, about 2. */
const pixelTolerance = 1e-6;

/** Q8_0 rounds a weight to 1/127 of its block's largest, 0.2 % of a typical one; logits then still point the same way. */
const cosineTolerance = 1e-3;

/** One float32 rounding of a scale times a small whole number. */
const blockTolerance = 2 ** -23;

/**
 * Converts the fixture's checkpoints to a temporary file and compares every stage. Errors: those of openFixture, convert and load; a stage
 * that differs is no error but a result that did not pass.
 */
export async function verify(directory: string, options: VerifyOptions = {}): Promise<StageResult[]> {
  const fixture = await openFixture(directory);
  let folder: string | undefined;
  try {
    folder = await mkdtemp(join(tmpdir(), 'minigpt4-verify-'));
    return await new Verification(fixture, folder, options).run();
  } finally {
    await fixture.close();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

class Verification {
  readonly #fixture: Fixture;
  readonly #folder: string;
  readonly #type: WritableType;
  readonly #options: VerifyOptions;
  readonly #results: StageResult[] = [];
  /** Of the device, once the model is loaded. */
  #allowed: Tolerance | undefined;

  constructor(fixture: Fixture, folder: string, options: VerifyOptions) {
    this.#fixture = fixture;
    this.#folder = folder;
    this.#options = options;
    this.#type = options.type ?? 'f32';
  }

  async run(): Promise<StageResult[]> {
    const fixture = this.#fixture;
    const bundle = await this.#bundle();
    // before the stages that need no model: a device that is not there is told before anything passes
    const model = await this.#load(bundle);
    let first: DecodedPicture;
    try {
      if (fixture.quants) await this.#blockTypes();
      const pictures = new Map<string, DecodedPicture>();
      for (const path of fixture.images) pictures.set(path, await readPicture(path));
      await this.#resizing(pictures);
      const info = model.info();
      const allowed = (this.#allowed = tolerance(info, this.#type));
      this.#options.onDevice?.(info.device, allowed);
      const order = (await this.#pixels(model, pictures)).map((path) => pictures.get(path)!);
      first = order[0]!;
      await this.#encoding(model);
      const image = await model.encodeImage(first.data, first.width, first.height);
      this.#tokens(model, image);
      await this.#chat(model, image);
      await this.#greedy(model, image, 'greedy ids');
      for (const stage of ['stage1', 'stage2'] as const) {
        const training = fixture.expected[stage];
        if (!training) continue;
        if (info.gpuLayers > 0 && info.gpuLayers < info.layers) {
          this.#tell(result(stage, 'relative', NaN, undefined, 'not computed: training needs all layers in one place'));
          continue;
        }
        const results = await verifyTraining(model, stage, training, order, fixture.tensors, this.#type, allowed);
        for (const one of results) this.#tell(one);
      }
    } finally {
      await model.close();
    }
    for (const llm of fixture.llms.slice(1)) await this.#otherLlm(bundle, llm, first);
    return this.#results;
  }

  /** float32 holds what the files hold; f16 too, because the converter leaves what was published in float32 as it is. */
  get #lossless(): boolean {
    return this.#type === 'f32' || this.#type === 'f16';
  }

  #tell(one: StageResult): void {
    this.#results.push(one);
    this.#options.onResult?.(one);
  }

  /** Whether a stage may fail the whole depends on the type: a quantized model is judged by its logits' direction. */
  #stage(name: string, found: Float32Array | undefined, expected: Float32Array): void {
    const error = found ? relativeError(found, expected) : NaN;
    const note =
      found === undefined
        ? 'not computed'
        : found.length !== expected.length
          ? `expected ${expected.length} numbers, found ${found.length}`
          : undefined;
    this.#tell(result(name, 'relative', error, this.#lossless ? this.#allowed?.stage : undefined, note));
  }

  async #bundle(): Promise<string> {
    const { vit, qformer, projection, config, llms } = this.#fixture;
    const out = join(this.#folder, 'bundle.gguf');
    await convert({
      vit,
      projection,
      llm: llms[0]!,
      out,
      type: this.#type,
      ...(qformer === undefined ? {} : { qformer }),
      ...(config === undefined ? {} : { config }),
    });
    return out;
  }

  #load(model: string, llm?: string): Promise<NativeModel> {
    const { type: _, onDevice, onResult, ...computing } = this.#options;
    // the cache in float32, so that only what is verified can differ
    return addon.loadModel({
      model,
      kvType: 'f32',
      ...(llm === undefined ? {} : { llm }),
      ...computing,
    });
  }

  /** Each GGUF block type: decoded as gguf-py decodes it, and encoded with no larger squared error than gguf-py's own encoding. */
  async #blockTypes(): Promise<void> {
    const quants = this.#fixture.quants!;
    for (const name of [...quants.tensors.keys()]
      .filter((key) => key.endsWith('.bytes'))
      .map((key) => key.slice(0, -'.bytes'.length))
      .sort()) {
      const type = name.toLowerCase() as TypeName;
      const floats = await floatsOf(quants, `${name}.floats`);
      const rowLength = quants.tensors.get(`${name}.floats`)!.shape[1]!;
      this.#tell(
        result(
          `decode ${type}`,
          'relative',
          elementError(addon.decodeRows(type, rowLength, await bytesOf(quants, `${name}.bytes`)), floats),
          blockTolerance,
        ),
      );
      if (!quants.tensors.has(`${name}.source`)) continue;
      const source = await floatsOf(quants, `${name}.source`);
      const ours = squaredError(addon.decodeRows(type, rowLength, addon.encodeRows(type, rowLength, source)), source);
      // a millionth for the order of the sum
      this.#tell(
        result(
          `encode ${type}`,
          'ratio',
          ours / squaredError(floats, source),
          1 + 1e-6,
          "squared error over gguf-py's",
        ),
      );
    }
  }

  /** Pillow's bicubic, byte for byte. */
  async #resizing(pictures: Map<string, DecodedPicture>): Promise<void> {
    for (const [path, { data, width, height }] of pictures) {
      const name = `resized224.${basename(path)}`;
      if (!this.#fixture.tensors.tensors.has(name)) continue;
      const expected = await bytesOf(this.#fixture.tensors, name);
      const size = this.#fixture.tensors.tensors.get(name)!.shape[0]!;
      this.#tell(
        result(name, 'levels', largestDifference(await addon.resizeBicubic(data, width, height, size), expected), 0),
      );
    }
  }

  /** The pictures in the order in which the fixture has them, which only the pixels themselves tell. */
  async #pixels(model: NativeModel, pictures: Map<string, DecodedPicture>): Promise<string[]> {
    const size = model.info().imageSize;
    const expected = await floatsOf(this.#fixture.tensors, 'pixels');
    const each = 3 * size * size;
    const found = new Map<string, Float32Array>();
    for (const [path, { data, width, height }] of pictures) {
      found.set(path, addon.normalise(await addon.resizeBicubic(data, width, height, size), size));
    }
    const order: string[] = [];
    let worst = 0;
    for (let i = 0; i * each < expected.length; i++) {
      const wanted = expected.subarray(i * each, (i + 1) * each);
      const [best] = [...found]
        .map(([path, planes]) => ({ path, error: relativeError(planes, wanted) }))
        .sort((a, b) => a.error - b.error);
      if (!best)
        throw new MiniGptError(
          'ERR_FILE_FORMAT',
          `${this.#fixture.directory}/images: expected a picture for each of pixels, found too few`,
        );
      found.delete(best.path);
      order.push(best.path);
      worst = Math.max(worst, best.error);
    }
    this.#tell(result('pixels', 'relative', worst, pixelTolerance));
    return order;
  }

  /** Every stage from pixels to the language model's space, for each picture. */
  async #encoding(model: NativeModel): Promise<void> {
    const { tensors } = this.#fixture;
    const pixels = await floatsOf(tensors, 'pixels');
    const count = tensors.tensors.get('pixels')!.shape[0]!;
    const each = pixels.length / count;
    const traces: Record<string, Float32Array>[] = [];
    for (let i = 0; i < count; i++) traces.push(await model.traceImage(pixels.slice(i * each, (i + 1) * each)));
    for (const name of stageOrder(
      [...tensors.tensors.keys()].filter((key) => key.startsWith('encode.')),
      Object.keys(traces[0] ?? {}),
    )) {
      this.#stage(
        name,
        joined(traces.map((trace) => trace[name.slice('encode.'.length)])),
        await floatsOf(tensors, name),
      );
    }
  }

  #prompt(image: NativeImage): NativePromptPart[] {
    const [before, after] = this.#fixture.expected.chat.segment_ids;
    return [{ ids: Int32Array.from(before) }, image, { ids: Int32Array.from(after) }];
  }

  /** Ids of the texts and of the template's words. */
  #tokens(model: NativeModel, image: NativeImage): void {
    const { chat, tokenizer } = this.#fixture.expected;
    let different = 0;
    let note: string | undefined;
    for (const { text, ids } of tokenizer) {
      const compared = compareIds(model.encode(text), ids);
      if (compared.different === 0) continue;
      different++;
      note ??= `${JSON.stringify(text.slice(0, 40))}, ${compared.note}`;
    }
    this.#tell(result(`tokenizer (${tokenizer.length} texts)`, 'different', different, 0, note));
    // the fixtures' turn is worded as Vicuna's template has it, whatever their variant
    const words = renderPrompt(templateOf('vicuna0'), withQuestion(withImage([], image), defaultPrompt));
    const ids = words.flatMap((part) =>
      typeof part === 'string'
        ? Array.from(model.encode(part))
        : 'token' in part
          ? [Array.from(model.encode(String(part.token), true))].flat()
          : [-1],
    );
    const [before, after] = chat.segment_ids;
    const compared = compareIds(ids, [...before, -1, ...after]);
    this.#tell(result('template vicuna0', 'different', compared.different, 0, compared.note));
  }

  /** Every stage of the language model, at every row of the prompt. */
  async #chat(model: NativeModel, image: NativeImage): Promise<void> {
    const { tensors } = this.#fixture;
    const trace = await model.tracePrompt(this.#prompt(image));
    for (const name of stageOrder(
      [...tensors.tensors.keys()].filter((key) => key.startsWith('chat.')),
      Object.keys(trace),
    )) {
      const expected = await floatsOf(tensors, name);
      const found = trace[name.slice('chat.'.length)];
      this.#stage(name, found, expected);
      if (name !== 'chat.logits') continue;
      const distance = found ? worstCosineDistance(found, expected, tensors.tensors.get(name)!.shape.at(-1)!) : NaN;
      this.#tell(
        result(
          'chat.logits (direction)',
          '1 - cosine',
          distance,
          this.#lossless || this.#type === 'q8_0' ? cosineTolerance : undefined,
        ),
      );
    }
  }

  async #greedy(model: NativeModel, image: NativeImage, name: string): Promise<void> {
    const { greedy_ids: expected } = this.#fixture.expected.chat;
    const { ids } = await generateGreedy(model, this.#prompt(image), expected.length);
    const { different, note } = compareIds(ids, expected);
    this.#tell(result(name, 'different', different, this.#lossless ? 0 : undefined, note));
  }

  /** The same language model in another format gives the same ids. */
  async #otherLlm(bundle: string, llm: string, first: DecodedPicture): Promise<void> {
    let file = llm;
    if (!llm.endsWith('.gguf')) {
      file = join(this.#folder, `${basename(llm)}.gguf`);
      await convert({ llm, out: file, type: this.#type, only: 'llm' });
    }
    const model = await this.#load(bundle, file);
    try {
      await this.#greedy(
        model,
        await model.encodeImage(first.data, first.width, first.height),
        `greedy ids, ${basename(llm)}`,
      );
    } finally {
      await model.close();
    }
  }
}

/** The order in which the stages are computed; what was not computed comes last. */
function stageOrder(expected: string[], computed: string[]): string[] {
  const place = (name: string) => {
    const index = computed.indexOf(name.slice(name.indexOf('.') + 1));
    return index < 0 ? computed.length : index;
  };
  return expected.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
}

function joined(parts: (Float32Array | undefined)[]): Float32Array | undefined {
  if (parts.some((part) => part === undefined)) return undefined;
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part!.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part!, at);
    at += part!.length;
  }
  return whole;
}
