// Small data sets for tests: pictures of a few pixels, all different, in tars, folders and lists.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import sharp from 'sharp';
import { pack } from 'tar-stream';
import type { DatasetConfig, LoaderOptions } from '../lib/data/options.js';
import type { Batch } from '../lib/data/pair.js';

/** A PNG of 8 x 6 pixels, or so many, that no other number gives. */
export function picture(number: number, width = 8, height = 6): Promise<Buffer> {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => (number * 101 + i * 7 + (number >> 3)) & 255);
  data.set([number & 255, number >> 8, 77]);
  return sharp(data, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}

export type Members = [name: string, contents: string | Uint8Array][];

export function tar(members: Members): Promise<Buffer> {
  const archive = pack();
  for (const [name, contents] of members) archive.entry({ name }, Buffer.from(contents as Uint8Array));
  archive.finalize();
  return buffer(archive);
}

/** The members of pairs `first` to `first + count - 1`. */
export async function pairMembers(first: number, count: number): Promise<Members> {
  const members: Members = [];
  for (let i = first; i < first + count; i++) {
    const key = String(i).padStart(6, '0');
    members.push([`${key}.png`, await picture(i)], [`${key}.json`, JSON.stringify({ caption: `Caption ${i}.` })]);
  }
  return members;
}

export function write(path: string, contents: string | Uint8Array): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, contents);
  return path;
}

/** `count` shards of `pairs` pairs each; their pattern. */
export async function shards(folder: string, count: number, pairs: number): Promise<string> {
  for (let i = 0; i < count; i++)
    write(join(folder, `${String(i).padStart(5, '0')}.tar`), await tar(await pairMembers(i * pairs, pairs)));
  return join(folder, `{00000..${String(count - 1).padStart(5, '0')}}.tar`);
}

/** A cc_sbu_align folder with pictures 0 to count - 1. */
export async function align(folder: string, count: number): Promise<string> {
  const annotations = [];
  for (let i = 0; i < count; i++) {
    write(join(folder, 'image', `${i}.jpg`), await picture(i)); // what a file is, its bytes say
    annotations.push({ image_id: i % 2 ? i : String(i), caption: `The picture ${i}.` });
  }
  write(join(folder, 'filter_cap.json'), JSON.stringify({ annotations }));
  return folder;
}

export function dataset(given: Pick<DatasetConfig, 'format' | 'storage'> & Partial<DatasetConfig>): DatasetConfig {
  return { name: given.format, batchSize: 4, sampleRatio: 1, shuffleBuffer: 0, holdout: 0, ...given };
}

export function options(datasets: DatasetConfig[], given: Partial<LoaderOptions> = {}): LoaderOptions {
  return { datasets, seed: 42, rank: 0, worldSize: 1, mix: 'batch', readAhead: 2, ...given };
}

export const names = (batch: Batch): string[] => batch.pairs.map(({ name }) => name);

/** Everything about a batch, to be compared. */
export const content = ({ dataset: of, pairs, skipped }: Batch): unknown => ({
  of,
  skipped,
  pairs: pairs.map(({ pixels, ...pair }) => ({
    ...pair,
    pixels: pixels && { ...pixels, data: Buffer.from(pixels.data).toString('hex') },
  })),
});
