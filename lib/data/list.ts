// A plain list of pairs: CSV with a header, or one JSON object a line; a picture's path and its caption under their usual names.
import { createReadStream } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { InputFile, systemError } from '../formats/input-file.js';
import { nearest } from '../nearest.js';
import { show } from '../options.js';
import { applyRules } from './captions.js';
import { csvRows } from './csv.js';
import { wrongTurns, type ListedPair } from './listed.js';
import type { DatasetConfig } from './options.js';

const pictureWords = ['path', 'image', 'picture', 'file'];
const captionWords = ['caption', 'text'];

/**
 * The list's pairs. Lines that can't be read are pairs with a problem.
 *
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT (empty, no UTF-8 text, a CSV without the columns or with a quote that does not close, a JSON list).
 */
export async function readList(config: DatasetConfig): Promise<ListedPair[]> {
  const path = config.storage;
  const folder = config.images ?? dirname(path);
  const pairs: ListedPair[] = [];
  const add = (line: number, picture: unknown, caption: unknown, problem?: string) => {
    const named = typeof picture === 'string' && picture !== '';
    const turns = typeof caption === 'string' ? [{ answer: applyRules(caption, config.caption) }] : [];
    const pair: ListedPair = {
      name: named ? picture : `line ${line}`,
      picture: named ? resolve(folder, picture) : '',
      turns,
    };
    if (problem === undefined && (hasWrongBytes(picture) || hasWrongBytes(caption))) {
      // a path in another encoding names no file, and a caption of broken words teaches them
      pairs.push({ name: `line ${line}`, picture: '', turns: [], problem: notUtf8 });
      return;
    }
    const wrong = problem ?? (named ? wrongTurns(turns) : `has no path (${pictureWords.join(', ')})`);
    pairs.push(wrong === undefined ? pair : { ...pair, problem: wrong });
  };
  const json = await isJsonLines(path);
  try {
    if (json) {
      for await (const [line, text] of lines(pieces(path))) {
        const fields = parseObject(text);
        if (typeof fields === 'string') add(line, undefined, undefined, fields);
        else add(line, first(fields, pictureWords), first(fields, captionWords));
      }
    } else {
      let columns: { picture: number; caption: number; count: number } | undefined;
      for await (const { line, fields, problem, unclosed } of csvRows(pieces(path))) {
        if (unclosed)
          throw new MiniGptError('ERR_FILE_FORMAT', `${path}: a quote in the record of line ${line} does not close`);
        if (!columns) {
          columns = columnsOf(path, fields);
          continue;
        }
        const count =
          fields.length === columns.count ? undefined : `has ${fields.length} fields; expected ${columns.count}`;
        const wrong = problem ?? count;
        if (wrong === undefined) add(line, fields[columns.picture], fields[columns.caption]);
        else add(line, undefined, undefined, wrong);
      }
    }
  } catch (error) {
    throw systemError(path, error);
  }
  return pairs;
}

async function* pieces(path: string): AsyncGenerator<string> {
  let start = true;
  for await (const piece of createReadStream(path, {
    encoding: 'utf8',
    highWaterMark: 2 ** 18,
  }) as AsyncIterable<string>) {
    yield start ? piece.replace(/^\ufeff/, '') : piece;
    start = false;
  }
}

const notUtf8 = 'has U+FFFD, which stands for bytes that are no UTF-8';
const hasWrongBytes = (field: unknown): boolean => typeof field === 'string' && field.includes('\ufffd');

/** Error: ERR_FILE_FORMAT (UTF-16, no text at all). */
function checkText(path: string, bytes: Buffer): void {
  const wrong = (found: string) =>
    new MiniGptError('ERR_FILE_FORMAT', `${path}: expected a list in UTF-8, a CSV or JSON lines, found ${found}`);
  if (['fffe', 'feff'].includes(bytes.subarray(0, 2).toString('hex'))) throw wrong('UTF-16');
  const zero = bytes.indexOf(0);
  if (zero >= 0) throw wrong(`no text (a zero byte at ${zero})`);
}

/** By the name's ending, or else by the first character. */
async function isJsonLines(path: string): Promise<boolean> {
  const file = await InputFile.open(path);
  try {
    const ending = extname(path).toLowerCase();
    const bytes = await file.read(0, Math.min(file.size, 4096));
    checkText(path, bytes);
    if (['.jsonl', '.ndjson'].includes(ending)) return true;
    const text = bytes
      .toString('utf8')
      .replace(/^\ufeff/, '')
      .trimStart();
    if (text.startsWith('[') && ending !== '.csv') {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path} is one JSON list: expected a CSV with a header, or one JSON object a line; a LLaVA file has the format 'llava'`,
      );
    }
    return ending !== '.csv' && text.startsWith('{');
  } finally {
    await file.close();
  }
}

function columnsOf(path: string, header: string[]): { picture: number; caption: number; count: number } {
  const names = header.map((name) => name.trim().toLowerCase());
  const column = (words: string[]) => {
    const found = words.find((word) => names.includes(word));
    if (found !== undefined) return names.indexOf(found);
    const near = words.map((word) => nearest(word, names)).find((name) => name !== undefined);
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: expected a header with a column ${words.join(' or ')}, found ${names.slice(0, 8).map(show).join(', ')}` +
        (near ? `; is ${near} meant to be ${words[0]}?` : ''),
    );
  };
  return { picture: column(pictureWords), caption: column(captionWords), count: names.length };
}

/** The line's object, or what is wrong with it. */
function parseObject(text: string): Record<string, unknown> | string {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    return 'is no JSON object';
  } catch (error) {
    // the message has a piece of the line
    return `is no JSON: ${(error as Error).message.replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd')}`;
  }
}

function first(fields: Record<string, unknown>, words: string[]): unknown {
  return fields[words.find((word) => fields[word] !== undefined) ?? ''];
}

/** Lines that hold something, with their numbers. */
async function* lines(texts: AsyncIterable<string>): AsyncGenerator<[number, string]> {
  let number = 1;
  let rest = '';
  for await (const text of texts) {
    const parts = (rest + text).split('\n');
    rest = parts.pop()!;
    for (const part of parts) {
      if (part.trim() !== '') yield [number, part];
      number++;
    }
  }
  if (rest.trim() !== '') yield [number, rest];
}
