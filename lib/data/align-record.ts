// The record of how stage-2 data was made: one line of JSON for every step of every picture. A run goes on from it, whatever ended the
// last one.
import { open, readFile, truncate, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { MiniGptError } from '../errors.js';
import { lockFolder } from '../formats/folder-lock.js';
import { systemError } from '../formats/input-file.js';
import { makeFolders } from '../formats/make-folders.js';
import type { DropRule, Verdict } from './align-filters.js';
import { writeFailure } from './tar-writer.js';

/** How descriptions are made; the first line of the record. A run that goes on must have the same. */
export interface AlignSettings {
  step: 'settings';
  version: 1;
  model: string;
  projection: string;
  template: string;
  prompt: string;
  continuation: string;
  continueUpTo: number;
  temperature: number;
  maxTokens: number;
  seed: number;
}

/** A step of one picture. `id` is its name in what is written: `image/ID.jpg`. */
export type AlignStep =
  | { step: 'picture'; id: string; name: string; sha256: string }
  | { step: 'describe' | 'continue'; id: string; text: string; tokens: number; finishReason: string }
  | { step: 'refine'; id: string; text: string; model: string; finishReason: string; attempts: number }
  | { step: 'refused'; id: string; reason: string }
  | { step: 'keep'; id: string; caption: string }
  | { step: 'drop'; id: string; rule: DropRule; text: string }
  | { step: 'skip'; name: string; reason: string };

/** What is known of a picture. */
export interface AlignedPicture {
  id: string;
  name: string;
  sha256: string;
  described?: { text: string; tokens: number };
  continued?: { text: string; tokens: number };
  refined?: { text: string; finishReason: string };
  verdict?: Verdict;
}

export class AlignRecord {
  readonly path: string;
  /** By the SHA-256 of the file. */
  readonly pictures = new Map<string, AlignedPicture>();
  readonly #file: FileHandle;
  readonly #unlock: () => Promise<void>;
  readonly #byId = new Map<string, AlignedPicture>();
  readonly #skipped = new Set<string>();
  #settings: AlignSettings | undefined;
  #next = 0;
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(path: string, file: FileHandle, unlock: () => Promise<void>) {
    this.path = path;
    this.#file = file;
    this.#unlock = unlock;
  }

  /**
   * Opens or begins the record in `folder`. A last line that a crash cut off is taken away. Errors: ERR_FILE_FORMAT (a damaged line before it),
   * ERR_ARGUMENT (the record was made with other settings,
   * which are named; another run has the folder), ERR_FILE_READ.
   */
  static async open(folder: string, settings: AlignSettings): Promise<AlignRecord> {
    const path = join(folder, 'record.jsonl');
    let file: FileHandle;
    let lines: string[];
    let unlock: () => Promise<void> = async () => {};
    try {
      await makeFolders(join(folder, 'image'));
      unlock = await lockFolder(folder, 'record.lock');
      lines = await wholeLines(path);
      file = await open(path, 'a');
    } catch (error) {
      await unlock();
      throw writeFailure(path, error);
    }
    const record = new AlignRecord(path, file, unlock);
    try {
      for (const [index, line] of lines.entries()) record.#take(parseLine(path, index, line));
      if (record.#settings) refuseOthers(path, record.#settings, settings);
      else if (lines.length > 0) {
        throw new MiniGptError('ERR_FILE_FORMAT', `${path}: expected its settings in the first line, found none`);
      } else {
        await record.#append(settings);
      }
      return record;
    } catch (error) {
      await record.close();
      throw error;
    }
  }

  /** Notes a step: when this returns it is in the file. Errors: ERR_FILE_READ. */
  async note(step: AlignStep): Promise<void> {
    // a broken picture is met again in every run, and told once
    if (step.step === 'skip' && this.#skipped.has(`${step.name}\n${step.reason}`)) return;
    await this.#append(step);
    this.#take(step);
  }

  /** The name for the next picture. */
  nextId(): string {
    return String(this.#next++);
  }

  async close(): Promise<void> {
    await this.#writing.catch(() => {});
    await this.#file.close();
    await this.#unlock();
  }

  #append(line: AlignStep | AlignSettings): Promise<void> {
    // one after the other, each line whole
    const write = this.#writing.then(async () => {
      try {
        await this.#file.appendFile(`${JSON.stringify({ ...line, at: new Date().toISOString() })}\n`);
      } catch (error) {
        throw writeFailure(this.path, error);
      }
    });
    write.catch(() => {}); // its caller hears it
    this.#writing = write; // and no line is written behind one that was cut off
    return write;
  }

  #take(line: AlignStep | AlignSettings): void {
    if (line.step === 'settings') {
      this.#settings = line;
      return;
    }
    if (line.step === 'skip') {
      this.#skipped.add(`${line.name}\n${line.reason}`);
      return;
    }
    if (line.step === 'picture') {
      const picture: AlignedPicture = { id: line.id, name: line.name, sha256: line.sha256 };
      this.pictures.set(line.sha256, picture);
      this.#byId.set(line.id, picture);
      this.#next = Math.max(this.#next, Number(line.id) + 1);
      return;
    }
    const picture = this.#byId.get(line.id);
    if (!picture) {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${this.path}: a step of picture ${line.id}, which no line before names`,
      );
    }
    if (line.step === 'describe') picture.described = { text: line.text, tokens: line.tokens };
    else if (line.step === 'continue') picture.continued = { text: line.text, tokens: line.tokens };
    else if (line.step === 'refine') picture.refined = { text: line.text, finishReason: line.finishReason };
    else if (line.step === 'keep') picture.verdict = { kept: true, caption: line.caption };
    else if (line.step === 'drop') picture.verdict = { kept: false, rule: line.rule };
  }
}

/** The lines of a file that may not exist; what stands behind the last line break is cut off the file. */
async function wholeLines(path: string): Promise<string[]> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw systemError(path, error);
  }
  const end = bytes.lastIndexOf(10) + 1;
  if (end < bytes.length) await truncate(path, end);
  return end === 0 ? [] : bytes.toString('utf8', 0, end - 1).split('\n');
}

const fields: Record<string, readonly string[]> = {
  settings: ['model', 'prompt'],
  picture: ['id', 'name', 'sha256'],
  describe: ['id', 'text'],
  continue: ['id', 'text'],
  refine: ['id', 'text'],
  refused: ['id'],
  keep: ['id', 'caption'],
  drop: ['id', 'rule'],
  skip: ['name', 'reason'],
};

function parseLine(path: string, index: number, line: string): AlignStep | AlignSettings {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const object = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const step = String(object['step']);
  const wanted = Object.hasOwn(fields, step) ? fields[step]! : undefined;
  const whole = wanted?.every((field) => typeof object[field] === 'string') ?? false;
  if (!whole || (typeof object['id'] === 'string' && !/^\d{1,15}$/.test(object['id']))) {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}, line ${index + 1}: expected a step of the record, found ${JSON.stringify(line.slice(0, 80))}; ` +
        'take that line away, or begin in another folder',
    );
  }
  return object as unknown as AlignStep | AlignSettings;
}

function refuseOthers(path: string, before: AlignSettings, now: AlignSettings): void {
  for (const key of Object.keys(now) as (keyof AlignSettings)[]) {
    if (before[key] === now[key]) continue;
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${path}: expected to go on with ${key} ${JSON.stringify(before[key])}, found ${JSON.stringify(now[key])}; ` +
        'give what the record was begun with, or begin in another folder',
    );
  }
}
