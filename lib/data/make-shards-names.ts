// The names of the shards that are made: numbered, with leading zeros, by a pattern with one place for the number.
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { MiniGptError } from '../errors.js';

const usualDigits = 5;

export class BuiltNames {
  readonly folder: string;
  readonly #before: string;
  readonly #after: string;
  readonly #digits: number;
  readonly #first: number;

  /** `out`: a folder, or a pattern whose last part has `{}`, `{...}`, `{00000..}` or `{00000..01255}` in it. Errors: ERR_ARGUMENT. */
  constructor(out: string) {
    const name = basename(out);
    const place = /^([^{}]*)\{(?:(?:\.\.\.)?|(\d+)\.\.\d*)\}([^{}]*)$/.exec(name);
    if (/[{}]/.test(dirname(out)) || (/[{}]/.test(name) && !place)) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `the shards to write: expected a folder or a pattern as FOLDER/{00000..}.tar, found ${JSON.stringify(out)}`,
      );
    }
    if (!place && name.toLowerCase().endsWith('.tar')) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `the shards to write: expected a folder or a place for the number, as {00000..}.tar, found ${JSON.stringify(out)}`,
      );
    }
    this.folder = place ? dirname(out) : out;
    this.#before = place?.[1] ?? '';
    this.#after = place ? place[3]! : '.tar';
    this.#digits = place?.[2]?.length ?? usualDigits;
    this.#first = Number(place?.[2] ?? 0);
    if (!this.#after.endsWith('.tar')) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `the shards to write: expected names that end in .tar, found ${JSON.stringify(name)}`,
      );
    }
  }

  /** The file name of the shard with this index, from 0. */
  name(index: number): string {
    return this.#before + this.#number(index) + this.#after;
  }

  path(index: number): string {
    return join(this.folder, this.name(index));
  }

  /** What the `storage` of a configuration is for so many shards. */
  storage(shards: number): string {
    if (shards === 1) return this.path(0);
    return join(this.folder, `${this.#before}{${this.#number(0)}..${this.#number(shards - 1)}}${this.#after}`);
  }

  /** Where the progress of the work is kept. */
  get manifest(): string {
    return join(this.folder, `${this.#before}build.json`);
  }

  /** Names of files in the folder that shards have or would have, with their indexes. */
  async existing(): Promise<{ name: string; index: number }[]> {
    const names = await readdir(this.folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    return names.flatMap((name) => {
      const number = name.slice(this.#before.length, name.length - this.#after.length);
      const index = Number(number) - this.#first;
      return /^\d+$/.test(number) && index >= 0 && this.name(index) === name ? [{ name, index }] : [];
    });
  }

  #number(index: number): string {
    return String(this.#first + index).padStart(this.#digits, '0');
  }
}
