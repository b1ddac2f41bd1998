// What making shards is told, and which values it takes.
import { z } from 'zod';
import { checkOptions, imageRules, loadRules } from '../options.js';

/** 'keep': the shorter side to so many pixels, never enlarged; 'squash': a square; 'border': the whole picture in a white square. */
export const resizeModes = ['keep', 'squash', 'border'] as const;
export type ResizeMode = (typeof resizeModes)[number];

export interface BuildOptions {
  /** A CSV or JSONL list, a LLaVA JSON file, a cc_sbu_align folder, or shards. */
  list: string;
  /** A folder, or a pattern of names with one place for the number: `FOLDER/photos-{00000..}.tar`, `FOLDER/{}.tar`. */
  out: string;
  /** Default: what `list` looks like. */
  format?: string;
  /** The folder that the list's picture paths are relative to. Default: the list's own. */
  images?: string;
  /** Default: 10000. */
  pairsPerShard?: number;
  /** Bytes of a shard's contents, at which the next one begins. Default: no limit. */
  shardSize?: number;
  /** Pixels of a side. Default: pictures stay as they are, bit for bit. */
  resize?: number;
  /** Default: 'keep'. */
  resizeMode?: ResizeMode;
  /** Of JPEG files that are made, 1 to 100. Default: 95. */
  quality?: number;
  /** Goes on after the last whole shard of a run that was cut short. */
  resume?: boolean;
  /** Replaces shards that are there. */
  force?: boolean;
  /** Default: 100 million. */
  maxPixels?: number;
  signal?: AbortSignal;
  /** Told of every pair that is passed over. */
  onSkip?: (name: string, reason: string) => void;
  onProgress?: (pairs: number, shards: number) => void;
}

const field = (expected: string, rule: z.ZodType, known: readonly string[] = []) => rule.meta({ expected, known });
const whole = (least: number, most: number) =>
  field(`a whole number from ${least} to ${most}`, z.number().int().min(least).max(most));
const text = (expected: string) => field(expected, z.string().min(1));
const flag = () => field('true or false', z.boolean());
const called = () =>
  field(
    'a function',
    z.custom((value) => typeof value === 'function'),
  );

const fields: Record<keyof BuildOptions, z.ZodType> = {
  list: text('the path of a data set'),
  out: text('a folder or a pattern of names'),
  format: text('the name of a format'),
  images: text('the path of a folder'),
  pairsPerShard: whole(1, 10_000_000),
  shardSize: field('bytes from 1', z.number().int().min(1)),
  resize: whole(1, 16_384),
  resizeMode: field(`one of ${resizeModes.join(', ')}`, z.enum(resizeModes), resizeModes),
  quality: whole(1, 100),
  resume: flag(),
  force: flag(),
  maxPixels: loadRules.shape['maxPixels'],
  signal: imageRules.shape['signal'],
  onSkip: called(),
  onProgress: called(),
};
const rules = z.object(fields);

/** The options, checked. `spell` as for checkOptions. Errors: ERR_ARGUMENT. */
export const checkBuildOptions = (options: BuildOptions, of: string, spell?: (key: string) => string): BuildOptions =>
  checkOptions(rules, options, of, spell);
