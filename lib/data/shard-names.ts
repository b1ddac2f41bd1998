// The names of shards as WebDataset's users write them: `{00000..01255}.tar`, `a,b` lists in braces, several patterns joined by `::`.
import { dirname, isAbsolute, join } from 'node:path';
import { MiniGptError } from '../errors.js';

const most = 1_000_000;

/**
 * The paths of all shards. Those after a `::` that are relative lie beside the first one's folder.
 *
 * Errors: ERR_ARGUMENT (braces that don't close, a range that runs backwards, more than a million names).
 */
export function shardNames(storage: string): string[] {
  const patterns = storage.split('::').filter((pattern) => pattern !== '');
  const home = dirname(patterns[0] ?? '');
  const names = patterns.flatMap((pattern, i) =>
    expand(i === 0 || isAbsolute(pattern) ? pattern : join(home, pattern)),
  );
  if (names.length === 0)
    throw new MiniGptError('ERR_ARGUMENT', `expected the names of shards, found ${JSON.stringify(storage)}`);
  return names;
}

function expand(pattern: string): string[] {
  const wrong = (what: string) => new MiniGptError('ERR_ARGUMENT', `the shards ${pattern}: ${what}`);
  const open = pattern.indexOf('{');
  const close = pattern.indexOf('}');
  if (open < 0 && close < 0) return [pattern];
  if (open < 0 || close < open) throw wrong('expected { and } in pairs');
  const [before, body, after] = [pattern.slice(0, open), pattern.slice(open + 1, close), pattern.slice(close + 1)];
  if (body.includes('{')) throw wrong('expected no braces within braces');
  const choices = range(body, wrong) ?? body.split(',');
  if (choices.length < 2 && !/^\d+\.\.\d+$/.test(body))
    throw wrong(`expected a range as {00000..00127} or a list as {a,b}, found {${body}}`);
  const names = choices.flatMap((choice) => expand(before + choice + after));
  if (names.length > most) throw wrong(`expected at most ${most} names, found more`);
  return names;
}

/** `00000..01255`, padded with zeros where one of the ends is. */
function range(body: string, wrong: (what: string) => MiniGptError): string[] | undefined {
  const ends = /^(\d+)\.\.(\d+)$/.exec(body);
  if (!ends) return undefined;
  const [first, last] = [ends[1]!, ends[2]!];
  const [from, to] = [Number(first), Number(last)];
  if (to < from) throw wrong(`the range {${body}} runs backwards`);
  if (to - from >= most) throw wrong(`expected at most ${most} names, found the range {${body}}`);
  const padded = [first, last].some((end) => end.length > 1 && end.startsWith('0'));
  const width = padded ? Math.max(first.length, last.length) : 0;
  return Array.from({ length: to - from + 1 }, (_, i) => String(from + i).padStart(width, '0'));
}
