// Looks through a data set before it is trained on: everything is read and decoded as training would, and nothing is changed.
import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { addon, type NativeTokenizer } from '../addon.js';
import { MiniGptError, abortedError, toMiniGptError } from '../errors.js';
import { InputFile } from '../formats/input-file.js';
import { readPicture } from '../image.js';
import { embeddedModelPath } from '../model.js';
import { applyRules } from './captions.js';
import { Digests } from './doctor-digests.js';
import { Findings, type Finding, type FindingKind } from './doctor-findings.js';
import { Tally, type Bar, type Spread } from './doctor-tally.js';
import { everyPair, findData, type MetPair, type MetShard, type ProblemAbout } from './every-pair.js';
import { wrongTurns } from './listed.js';
import { mapAhead } from './map-ahead.js';
import type { DataFormat } from './options.js';
import type { Turn } from './pair.js';
import { isUnusable } from './source.js';

export interface DoctorOptions {
  /** Shards by a pattern, a tar, a folder of tars, a cc_sbu_align folder, a LLaVA JSON file, a CSV or JSONL list. */
  path: string;
  /** Default: what `path` looks like. */
  format?: string;
  /** The folder that picture paths of a list are relative to. Default: the list's own. */
  images?: string;
  /** A GGUF file or a `tokenizer.model` that counts tokens. Default: the embedded miniature, whose vocabulary is small. */
  model?: string;
  /** Default: the original's, 32 for a WebDataset (stage 1) and 160 for all others (stage 2). */
  maxTextLength?: number;
  /** Default: the original's, a line break for a WebDataset and ### for all others. */
  endSign?: string;
  /** `blip_caption` before anything is counted. Default: for a WebDataset, as stage 1 has it, with 50 words. */
  caption?: { maxWords: number; prompt: string } | false;
  /** Pairs that are looked at, from the first. Default: all. */
  limit?: number;
  /** Of each finding so many pairs are named. Default: 5. */
  examples?: number;
  /** Default: 100 million. */
  maxPixels?: number;
  /** A shorter side below this is told. Default: 64. */
  smallSide?: number;
  /** Ends the work; the report is of what was looked at until then. */
  signal?: AbortSignal;
  onProgress?: (pairs: number) => void;
}

export interface DoctorReport {
  path: string;
  format: DataFormat;
  /** Whether everything was looked at: false after an abort or a limit. */
  complete: boolean;
  shards?: number;
  pairs: number;
  /** Pairs that training would use. */
  usable: number;
  findings: Finding[];
  /** Tokens of what is learned of a pair: answers with their end sign, and later questions. */
  tokens: { counter: string; maxTextLength: number; endSign: string; spread?: Spread; bars: Bar[] };
  pictures: { kinds: Record<string, number>; width?: Spread; height?: Spread; bytes?: Spread };
}

const decodedAtOnce = 8;

/**
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT (no data set), ERR_ARGUMENT, ERR_ABORTED (before anything was looked at). What is
 * wrong with single pairs and shards is in the report.
 */
export async function doctor(options: DoctorOptions): Promise<DoctorReport> {
  const { signal } = options;
  if (signal?.aborted) throw abortedError(signal);
  const place = await findData(options.path, options.format, options.images);
  const examination = new Examination(options, place.format, await openTokenizer(options.model));
  const limit = options.limit ?? Infinity;
  let met = 0;
  let complete = true;
  const source = async function* (): AsyncGenerator<MetPair | MetShard> {
    for await (const item of everyPair(place)) {
      if (signal?.aborted || ('name' in item && met >= limit)) {
        complete = false;
        return;
      }
      if ('name' in item) met++;
      yield item;
    }
  };
  for await (const looked of mapAhead(source(), decodedAtOnce, (item) => examination.look(item))) {
    examination.note(looked);
    options.onProgress?.(examination.pairs);
  }
  if (complete && examination.pairs === 0) examination.noteNothing(options.path);
  return {
    path: options.path,
    format: place.format,
    complete,
    ...(place.format === 'webdataset' ? { shards: place.paths.length } : {}),
    ...examination.results(),
  };
}

const kindsOfProblems = {
  missing: 'missing-picture',
  broken: 'broken-picture',
  caption: 'empty-caption',
  entry: 'broken-entry',
  turns: 'turn-order',
} as const satisfies Record<ProblemAbout, FindingKind>;

/** What one look told. */
type Looked =
  | MetShard
  | {
      name: string;
      wrong?: { kind: FindingKind; reason: string };
      turns?: Turn[];
      tokens?: number;
      picture?: { width: number; height: number; bytes: number; kind: string; digest: Uint8Array };
    };

const templateWords = /#{3,}|<\/?Img>|<ImageHere>|<\/?s>|\[\/?INST\]|\b(?:Human|Assistant):/;
/** U+FFFD stands where bytes were no UTF-8. */
const controlCharacters = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]/;

class Examination {
  pairs = 0;
  #usable = 0;
  readonly #options: DoctorOptions;
  readonly #tokenizer: NativeTokenizer;
  readonly #rules: { maxWords: number; prompt: string } | undefined;
  readonly #maxTextLength: number;
  readonly #endSign: string;
  readonly #findings: Findings;
  readonly #tokens = new Tally();
  readonly #sides = { width: new Tally(), height: new Tally(), bytes: new Tally() };
  readonly #kinds = new Map<string, number>();
  readonly #pictures = new Digests();
  readonly #whole = new Digests();

  constructor(options: DoctorOptions, format: DataFormat, tokenizer: NativeTokenizer) {
    const stage1 = format === 'webdataset';
    this.#options = options;
    this.#tokenizer = tokenizer;
    this.#rules = options.caption === undefined && stage1 ? { maxWords: 50, prompt: '' } : options.caption || undefined;
    this.#maxTextLength = options.maxTextLength ?? (stage1 ? 32 : 160);
    this.#endSign = options.endSign ?? (stage1 ? '\n' : '###');
    this.#findings = new Findings(options.examples ?? 5);
  }

  /** Reads and decodes; what it finds is noted in the data set's order. */
  async look(met: MetPair | MetShard): Promise<Looked> {
    if ('shard' in met) return met;
    const { name } = met;
    const failed = (kind: FindingKind, reason: string): Looked => ({ name, wrong: { kind, reason } });
    if (met.problem) {
      const { about, reason } = met.problem;
      return failed(kindsOfProblems[about], reason);
    }
    let picture: Uint8Array;
    let turns: Turn[];
    try {
      ({ picture, turns } = await met.read());
    } catch (error) {
      if (!isUnusable(error)) throw error;
      const missing = error.code === 'ERR_FILE_NOT_FOUND';
      return failed(missing ? 'missing-picture' : met.turns ? 'broken-picture' : 'broken-entry', error.message);
    }
    turns = turns.map((turn) => ({ ...turn, answer: applyRules(turn.answer, this.#rules) }));
    const wrong = wrongTurns(turns);
    if (wrong !== undefined) return failed('empty-caption', wrong);
    try {
      const { maxPixels } = this.#options;
      const { width, height } = await readPicture(picture, maxPixels === undefined ? {} : { maxPixels });
      const digest = createHash('sha256').update(picture).digest();
      const looked = { width, height, bytes: picture.length, kind: kindOf(picture), digest };
      return { name, turns, tokens: this.#count(turns), picture: looked };
    } catch (error) {
      if (!isUnusable(error)) throw error;
      return failed(/ is too large: /.test(error.message) ? 'large-picture' : 'broken-picture', error.message);
    }
  }

  note(looked: Looked): void {
    if ('shard' in looked) {
      this.#findings.add('shard-problem', looked.shard, looked.problem);
      return;
    }
    const number = this.pairs++;
    const { name, wrong, turns, tokens, picture } = looked;
    if (wrong) this.#findings.add(wrong.kind, name, wrong.reason);
    if (!turns || !picture || tokens === undefined) return;
    this.#usable++;
    this.#noteCaption(name, turns, tokens);
    this.#notePicture(name, number, turns, picture);
  }

  noteNothing(path: string): void {
    this.#findings.add('no-pairs', path, 'has none');
  }

  results(): Pick<DoctorReport, 'pairs' | 'usable' | 'findings' | 'tokens' | 'pictures'> {
    const tokens = this.#tokens.spread();
    const [width, height, bytes] = [
      this.#sides.width.spread(),
      this.#sides.height.spread(),
      this.#sides.bytes.spread(),
    ];
    return {
      pairs: this.pairs,
      usable: this.#usable,
      findings: this.#findings.list(),
      tokens: {
        counter: this.#options.model === undefined ? 'the embedded model' : basename(this.#options.model),
        maxTextLength: this.#maxTextLength,
        endSign: this.#endSign,
        ...(tokens ? { spread: tokens } : {}),
        bars: this.#tokens.bars(),
      },
      pictures: {
        kinds: Object.fromEntries(this.#kinds),
        ...(width && height && bytes ? { width, height, bytes } : {}),
      },
    };
  }

  #noteCaption(name: string, turns: Turn[], tokens: number): void {
    this.#tokens.add(tokens);
    if (tokens > this.#maxTextLength) {
      const reason = `${tokens} tokens with the end sign, of ${this.#maxTextLength}`;
      this.#findings.add('long-caption', name, reason);
    }
    const text = turns.map(({ answer }) => answer).join('\n');
    const word = templateWords.exec(text)?.[0];
    if (word !== undefined) this.#findings.add('template-words', name, `holds ${JSON.stringify(word)}`);
    const control = controlCharacters.exec(text)?.[0];
    if (control !== undefined) {
      const code = control.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0');
      this.#findings.add('control-characters', name, `holds U+${code}`);
    }
  }

  #notePicture(
    name: string,
    number: number,
    turns: Turn[],
    {
      width,
      height,
      bytes,
      kind,
      digest,
    }: { width: number; height: number; bytes: number; kind: string; digest: Uint8Array },
  ): void {
    this.#sides.width.add(width);
    this.#sides.height.add(height);
    this.#sides.bytes.add(bytes);
    this.#kinds.set(kind, (this.#kinds.get(kind) ?? 0) + 1);
    if (Math.min(width, height) < (this.#options.smallSide ?? 64))
      this.#findings.add('small-picture', name, `${width} x ${height} pixels`);
    const all = createHash('sha256').update(digest).update(JSON.stringify(turns)).digest();
    const [before, pair] = [this.#pictures.meet(digest, number), this.#whole.meet(all, number)];
    if (pair !== undefined) this.#findings.add('same-pair', name, `is pair ${pair + 1} of the data set again`);
    else if (before !== undefined) this.#findings.add('same-picture', name, `has the picture of pair ${before + 1}`);
  }

  #count(turns: Turn[]): number {
    const special = this.#endSign === '</s>';
    return turns.reduce((sum, { question, answer }, i) => {
      const asked = i === 0 || question === undefined ? 0 : this.#tokenizer.encode(question).length;
      return sum + asked + this.#tokenizer.encode(special ? answer : answer + this.#endSign).length + (special ? 1 : 0);
    }, 0);
  }
}

async function openTokenizer(path = embeddedModelPath): Promise<NativeTokenizer> {
  const file = await InputFile.open(path);
  try {
    const isGguf = (await file.read(0, Math.min(4, file.size))).toString('latin1') === 'GGUF';
    return addon.createTokenizer(isGguf ? path : await file.read(0, file.size));
  } catch (error) {
    throw new MiniGptError(toMiniGptError(error).code, `${path}: ${toMiniGptError(error).message}`, { cause: error });
  } finally {
    await file.close();
  }
}

/** By its first bytes. */
function kindOf(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.subarray(0, 12)).toString('latin1');
  if (text.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (text.startsWith('\x89PNG')) return 'png';
  if (text.startsWith('RIFF') && text.endsWith('WEBP')) return 'webp';
  return text.startsWith('GIF8') ? 'gif' : 'other';
}

/** Whether training would pass something over. */
export const hasSkipped = (report: DoctorReport): boolean => report.findings.some(({ skipped }) => skipped);
