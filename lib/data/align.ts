// Stage-2 data as the paper made it: the stage-1 model describes each picture, goes on where it said little, a language model puts the
// words right, rules drop what failed, and what is left becomes a cc_sbu_align folder. Every step is recorded, and none is done twice.
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { MiniGptError, abortedError, toMiniGptError } from '../errors.js';
import { replaceFile } from '../formats/replaced-file.js';
import { readPicture, type DecodedPicture } from '../image.js';
import { MiniGPT4, embeddedModelPath } from '../model.js';
import type { LoadOptions } from '../options.js';
import type { TemplateName } from '../prompt.js';
import { Random } from '../random.js';
import { judge, type DropRule, type Verdict } from './align-filters.js';
import { alignPrompt, checkAlignOptions, type AlignOptions } from './align-options.js';
import { findPictures, type FoundPicture } from './align-pictures.js';
import { AlignRecord, type AlignSettings, type AlignedPicture } from './align-record.js';
import { Refiner, RefusedError } from './align-refine.js';
import { mapAhead } from './map-ahead.js';

export { alignPrompt, type AlignOptions } from './align-options.js';
export { refineInstruction, type RefinerOptions } from './align-refine.js';
export type { DropRule } from './align-filters.js';

/** What became of one picture. */
export type AlignResult =
  /** `caption` is in the data set as that of `image/ID.jpg`. */
  | { name: string; outcome: 'kept'; id: string; caption: string; description: string }
  | { name: string; outcome: 'dropped'; id: string; rule: DropRule; description: string }
  /** Described; a run with a refining server goes on. */
  | { name: string; outcome: 'described'; id: string; description: string }
  /** The refining server would not; the next run asks it again. */
  | { name: string; outcome: 'refused'; id: string; reason: string; description: string }
  /** No picture that can be read. */
  | { name: string; outcome: 'skipped'; reason: string }
  /** The same file was there before, under another name. */
  | { name: string; outcome: 'duplicate'; id: string };

/** Counts of pictures of this selection, those of earlier runs included. */
export interface AlignSummary {
  pictures: number;
  skipped: number;
  duplicates: number;
  described: number;
  /** Of these, with a second turn. */
  continued: number;
  refined: number;
  /** Refined texts that reached the limit of tokens and may end within a sentence. */
  cut: number;
  refused: number;
  /** Described and not refined yet. */
  waiting: number;
  kept: number;
  dropped: Partial<Record<DropRule, number>>;
  /** What this run had to ask, of the two models. */
  asked: { descriptions: number; refinements: number };
  /** Captions in filter_cap.json now; undefined where none was written. */
  captions?: number;
}

/** So many refusals without a success between them are not the descriptions' fault. */
const mostRefusals = 8;

/**
 * Makes stage-2 data, one result a picture in their order; what the generator returns is the summary. Leaving the loop ends the work. What is
 * recorded in `out` is never done again: a second call with the same options goes on.
 *
 * Errors: ERR_ARGUMENT (options; a record made with other ones), ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_NETWORK (the refining server), ERR_ABORTED,
 * those of MiniGPT4.load(). The record and the captions up to there are kept.
 */
export async function* align(options: AlignOptions): AsyncGenerator<AlignResult, AlignSummary, void> {
  const checked = checkAlignOptions(options, 'align()');
  if (checked.signal?.aborted) throw abortedError(checked.signal);
  // before a model is loaded and a folder made for pictures that are not there
  const pictures = findPictures(checked.pictures, checked.count, checked.seed ?? defaultSeed);
  const first = await pictures.next();
  let own: MiniGPT4 | undefined;
  try {
    own = checked.model instanceof MiniGPT4 ? undefined : await MiniGPT4.load(checked.model ?? {});
    const model = own ?? (checked.model as MiniGPT4);
    const record = await AlignRecord.open(checked.out, await settingsOf(checked, model));
    try {
      const work = new Alignment(checked, model, record, begun(first, pictures));
      try {
        yield* work.results();
      } finally {
        await work.end();
      }
      return work.summary;
    } finally {
      await record.close();
    }
  } finally {
    await pictures.return();
    await own?.close();
  }
}

/** A generator whose first value was taken already. */
async function* begun<Value>(
  first: IteratorResult<Value, void>,
  rest: AsyncGenerator<Value, void, void>,
): AsyncGenerator<Value, void, void> {
  if (first.done) return;
  yield first.value;
  yield* rest;
}

/** A picture on its way. */
interface Underway {
  found: FoundPicture;
  bytes: Uint8Array;
  picture: AlignedPicture;
  /** Where it is to be described. */
  pixels?: DecodedPicture;
}

class Alignment {
  readonly #options: AlignOptions;
  readonly #model: MiniGPT4;
  readonly #record: AlignRecord;
  readonly #selected: AsyncGenerator<FoundPicture, void, void>;
  readonly #refiner: Refiner | undefined;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #seen = new Set<string>();
  #failure: unknown;
  #refusals = 0;
  #unsaved = 0;
  readonly summary: AlignSummary = {
    pictures: 0,
    skipped: 0,
    duplicates: 0,
    described: 0,
    continued: 0,
    refined: 0,
    cut: 0,
    refused: 0,
    waiting: 0,
    kept: 0,
    dropped: {},
    asked: { descriptions: 0, refinements: 0 },
  };

  constructor(
    options: AlignOptions,
    model: MiniGPT4,
    record: AlignRecord,
    selected: AsyncGenerator<FoundPicture, void, void>,
  ) {
    this.#selected = selected;
    this.#options = options;
    this.#model = model;
    this.#record = record;
    this.#refiner = options.refine ? new Refiner(options.refine) : undefined;
    this.#signal = options.signal ? AbortSignal.any([options.signal, this.#stop.signal]) : this.#stop.signal;
  }

  async *results(): AsyncGenerator<AlignResult, void, void> {
    const described = mapAhead(this.#pictures(), this.#options.atOnce ?? 4, (item) =>
      this.#stopOnError(this.#described(item)),
    );
    const refined = mapAhead(described, this.#options.requests ?? 4, (item) => this.#stopOnError(this.#refined(item)));
    let left = true;
    try {
      for await (const item of refined) {
        try {
          yield 'outcome' in item ? item : await this.#judged(item);
          if (this.#unsaved >= (this.#options.saveEvery ?? 50)) await this.#save();
          left = false;
        } finally {
          if (left) this.#stop.abort(); // what is at work ends before the loop waits for it
        }
        left = true;
      }
    } catch (error) {
      throw this.#options.signal?.aborted ? abortedError(this.#options.signal) : (this.#failure ?? error);
    }
  }

  /** A failure ends what else is at work, and is the one that is told. */
  async #stopOnError<Value>(work: Promise<Value>): Promise<Value> {
    try {
      return await work;
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#failure = error;
      this.#stop.abort();
      throw error;
    }
  }

  /** Ends what is at work; the captions that are there are written. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#save();
  }

  /** The selected pictures, each file once, with their names in the record. */
  async *#pictures(): AsyncGenerator<Underway | AlignResult, void, void> {
    for await (const found of this.#selected) {
      if (this.#signal.aborted) throw abortedError(this.#signal);
      this.summary.pictures++;
      let bytes: Uint8Array;
      let pixels: DecodedPicture | undefined;
      let sha256: string;
      try {
        bytes = await found.read();
        sha256 = createHash('sha256').update(bytes).digest('hex');
        const known = this.#record.pictures.get(sha256);
        if (!this.#seen.has(sha256) && (!known || !this.#isDescribed(known))) pixels = await this.#decode(bytes);
      } catch (error) {
        yield await this.#skip(found, error);
        continue;
      }
      let picture = this.#record.pictures.get(sha256);
      if (this.#seen.has(sha256)) {
        this.summary.duplicates++;
        yield { name: found.name, outcome: 'duplicate', id: picture!.id };
        continue;
      }
      this.#seen.add(sha256);
      if (!picture) {
        await this.#record.note({ step: 'picture', id: this.#record.nextId(), name: found.name, sha256 });
        picture = this.#record.pictures.get(sha256)!;
      }
      yield { found, bytes, picture, ...(pixels ? { pixels } : {}) };
    }
  }

  async #skip(found: FoundPicture, error: unknown): Promise<AlignResult> {
    const { code, message } = toMiniGptError(error);
    if (!['ERR_IMAGE', 'ERR_FILE_NOT_FOUND', 'ERR_FILE_READ', 'ERR_FILE_FORMAT', 'ERR_UNSUPPORTED'].includes(code))
      throw error;
    this.summary.skipped++;
    await this.#record.note({ step: 'skip', name: found.name, reason: message });
    return { name: found.name, outcome: 'skipped', reason: message };
  }

  #decode(bytes: Uint8Array): Promise<DecodedPicture> {
    const { maxPixels } = this.#options;
    return readPicture(bytes, { signal: this.#signal, ...(maxPixels === undefined ? {} : { maxPixels }) });
  }

  /** Whether a short description has its continuation: a crash may lie between the two lines. */
  #isDescribed({ described, continued }: AlignedPicture): boolean {
    return described !== undefined && (continued !== undefined || !this.#isShort(described));
  }

  #isShort({ text, tokens }: { text: string; tokens: number }): boolean {
    return text !== '' && tokens <= (this.#options.continueUpTo ?? defaultContinueUpTo);
  }

  async #described(item: Underway | AlignResult): Promise<Underway | AlignResult> {
    if ('outcome' in item) return item;
    const { picture, pixels } = item;
    delete item.pixels;
    if (pixels) await this.#describe(picture, pixels);
    this.summary.described++;
    if (picture.continued) this.summary.continued++;
    return item;
  }

  async #describe(picture: AlignedPicture, pixels: DecodedPicture): Promise<void> {
    const { prompt, continuation, temperature, maxTokens, template } = this.#options;
    const draw = new Random(this.#options.seed ?? defaultSeed, 'align', picture.sha256);
    const chat = this.#model.chat({
      template: template ?? trainingTemplate(this.#model),
      temperature: temperature ?? defaultTemperature,
      maxTokens: maxTokens ?? defaultMaxTokens,
    });
    try {
      await chat.image({ ...pixels, channels: 3 }, { signal: this.#signal });
      const ask = async (words: string) => {
        const { text, finishReason } = await chat.ask(words, { seed: draw.word(), signal: this.#signal });
        return { id: picture.id, text, tokens: this.#model.encode(text).length, finishReason };
      };
      const first = await ask(prompt ?? alignPrompt);
      const second = this.#isShort(first) ? await ask(continuation ?? defaultContinuation) : undefined;
      this.summary.asked.descriptions++;
      await this.#record.note({ step: 'describe', ...first });
      if (second) await this.#record.note({ step: 'continue', ...second });
    } finally {
      chat.close();
    }
  }

  async #refined(item: Underway | AlignResult): Promise<Underway | AlignResult> {
    if ('outcome' in item) return item;
    const { picture, found } = item;
    const description = descriptionOf(picture);
    // an empty description is dropped without asking anybody
    if (this.#refiner && !picture.refined && description !== '') {
      try {
        const reply = await this.#refiner.refine(description, this.#signal);
        this.#refusals = 0;
        this.summary.asked.refinements++;
        await this.#record.note({ step: 'refine', id: picture.id, ...reply });
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
        await this.#record.note({ step: 'refused', id: picture.id, reason: error.message });
        if (++this.#refusals >= mostRefusals)
          throw new MiniGptError(
            'ERR_NETWORK',
            `${error.message} (${this.#refusals} descriptions were refused in a row)`,
          );
        this.summary.refused++;
        return { name: found.name, outcome: 'refused', id: picture.id, reason: error.message, description };
      }
    }
    if (picture.refined) {
      this.summary.refined++;
      if (picture.refined.finishReason === 'length') this.summary.cut++;
    }
    return item;
  }

  async #judged({ found, bytes, picture }: Underway): Promise<AlignResult> {
    const description = descriptionOf(picture);
    const { name } = found;
    const { id } = picture;
    const reply =
      picture.refined?.text ?? (this.#options.refine === false || description === '' ? description : undefined);
    if (reply === undefined) {
      this.summary.waiting++;
      return { name, outcome: 'described', id, description };
    }
    const verdict = judge(description, reply, this.#options.dropPhrases);
    if (verdict.kept) {
      await this.#putPicture(id, bytes);
      this.summary.kept++;
    } else {
      this.summary.dropped[verdict.rule] = (this.summary.dropped[verdict.rule] ?? 0) + 1;
    }
    if (!sameVerdict(verdict, picture.verdict)) {
      await this.#record.note(
        verdict.kept
          ? { step: 'keep', id, caption: verdict.caption }
          : { step: 'drop', id, rule: verdict.rule, text: reply },
      );
      this.#unsaved++;
    }
    return verdict.kept
      ? { name, outcome: 'kept', id, caption: verdict.caption, description }
      : { name, outcome: 'dropped', id, rule: verdict.rule, description };
  }

  /** The picture's file as it is, or as a JPEG file where it is another kind. */
  async #putPicture(id: string, bytes: Uint8Array): Promise<void> {
    const path = join(this.#options.out, 'image', `${id}.jpg`);
    if (await stat(path).catch(() => undefined)) return; // of an earlier run
    await replaceFile(path, [isJpeg(bytes) ? bytes : await toJpeg(await this.#decode(bytes))], this.#signal);
  }

  /** Writes the captions of all pictures of the record that are kept. */
  async #save(): Promise<void> {
    this.#unsaved = 0;
    const annotations = Array.from(this.#record.pictures.values())
      .filter(({ verdict, refined }) => verdict?.kept && (refined !== undefined || !this.#refiner))
      .sort((a, b) => Number(a.id) - Number(b.id))
      .map(({ id, verdict }) => ({ image_id: id, caption: (verdict as Verdict & { kept: true }).caption }));
    const path = join(this.#options.out, 'filter_cap.json');
    // where nothing is kept yet, no list is begun; one that is there is brought up to date
    if (annotations.length === 0 && !(await stat(path).catch(() => undefined))) return;
    await replaceFile(path, [Buffer.from(`${JSON.stringify({ annotations }, undefined, 1)}\n`)]);
    this.summary.captions = annotations.length;
  }
}

const defaultSeed = 42;
const defaultContinuation = 'Continue';
const defaultContinueUpTo = 80;
const defaultTemperature = 1;
const defaultMaxTokens = 300;

/** The words of training in the form that the model's own template has. */
const trainingTemplate = (model: MiniGPT4): TemplateName =>
  model.info.template.startsWith('llama2') ? 'llama2-train' : 'vicuna0-train';

const descriptionOf = ({ described, continued }: AlignedPicture): string =>
  [described?.text, continued?.text].filter((text) => text !== undefined && text !== '').join(' ');

function sameVerdict(a: Verdict, b: Verdict | undefined): boolean {
  return a.kept ? b?.kept === true && a.caption === b.caption : b?.kept === false && a.rule === b.rule;
}

const isJpeg = (bytes: Uint8Array): boolean => bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;

async function toJpeg({ data, width, height }: DecodedPicture): Promise<Uint8Array> {
  const { default: sharp } = await import('sharp');
  return sharp(data, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 95, chromaSubsampling: '4:4:4' })
    .toBuffer();
}

async function settingsOf(options: AlignOptions, model: MiniGPT4): Promise<AlignSettings> {
  const load: LoadOptions = options.model instanceof MiniGPT4 ? {} : (options.model ?? {});
  const { path, name, template } = model.info;
  return {
    step: 'settings',
    version: 1,
    model: [path === embeddedModelPath ? 'embedded' : basename(path), name, load.llm && basename(String(load.llm))]
      .filter((part) => part !== undefined && part !== '')
      .join(', '),
    // checkpoints of a run have one name: their contents tell them apart
    projection: load.projection === undefined ? '' : await digestOf(load.projection),
    template: options.template ?? (template.startsWith('llama2') ? 'llama2-train' : 'vicuna0-train'),
    prompt: options.prompt ?? alignPrompt,
    continuation: options.continuation ?? defaultContinuation,
    continueUpTo: options.continueUpTo ?? defaultContinueUpTo,
    temperature: options.temperature ?? defaultTemperature,
    maxTokens: options.maxTokens ?? defaultMaxTokens,
    seed: options.seed ?? defaultSeed,
  };
}

async function digestOf(file: string | URL): Promise<string> {
  const path = typeof file === 'string' && file.startsWith('file:') ? new URL(file) : file;
  return `sha256 ${createHash('sha256')
    .update(await readFile(path))
    .digest('hex')}`;
}
