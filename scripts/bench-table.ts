// Puts the tables of the newest record of `minigpt4 bench` into the README, between its two marks.
//
//   node --import tsx scripts/bench-table.ts [RECORD.json]
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { BenchRecord } from '../lib/bench/record.js';
import { markdownOf } from '../lib/bench/table.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const START = '<!-- what follows is written by scripts/bench-table.ts -->';
const END = '<!-- until here -->';

/** The newest record of `minigpt4 bench` in bench/results; undefined where there is none. */
export function newestRecord(folder = join(root, 'bench', 'results')): BenchRecord | undefined {
  const records = readdirSync(folder)
    .filter((name) => /^bench-.*\.json$/.test(name))
    .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as BenchRecord);
  return records.sort((a, b) => a.date.localeCompare(b.date)).at(-1);
}

/** The README with the tables of a record between its marks, or with nothing there. */
export function withTables(readme: string, record: BenchRecord | undefined): string {
  const [before, between, after] = [readme.indexOf(START), readme.indexOf(END), readme.indexOf(END) + END.length];
  if (before < 0 || between < before) throw new Error(`README.md: expected ${START} and, after it, ${END}`);
  const tables = record ? `\n\n${markdownOf(record)}\n\n` : '\n';
  return `${readme.slice(0, before)}${START}${tables}${END}${readme.slice(after)}`;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [given] = process.argv.slice(2);
  const record = given === undefined ? newestRecord() : (JSON.parse(readFileSync(given, 'utf8')) as BenchRecord);
  if (!record) throw new Error('bench/results: expected a record bench-*.json, found none');
  const path = join(root, 'README.md');
  writeFileSync(path, withTables(readFileSync(path, 'utf8'), record));
}
