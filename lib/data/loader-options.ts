// Checks what the loader is told, before anything is read.
import { MiniGptError } from '../errors.js';
import { show } from '../options.js';
import type { DatasetConfig, LoaderOptions } from './options.js';

/** Errors: ERR_ARGUMENT with the data set, the option, what was expected and what was found. */
export function checkLoaderOptions(options: LoaderOptions): void {
  const { datasets, seed, rank, worldSize, mix, readAhead } = options;
  const wrong = (what: string, expected: string, found: unknown) =>
    new MiniGptError('ERR_ARGUMENT', `${what}: expected ${expected}, found ${show(found)}`);
  if (!Array.isArray(datasets) || datasets.length === 0) throw wrong('the data', 'at least one data set', datasets);
  if (!Number.isSafeInteger(seed)) throw wrong('seed', 'a whole number', seed);
  if (!isWhole(worldSize, 1)) throw wrong('worldSize', 'a whole number of processes, 1 or more', worldSize);
  if (!isWhole(rank, 0) || rank >= worldSize) throw wrong('rank', `a whole number from 0 to ${worldSize - 1}`, rank);
  if (mix !== 'batch' && mix !== 'sample') throw wrong('mix', "'batch' or 'sample'", mix);
  if (!isWhole(readAhead, 0)) throw wrong('readAhead', 'a whole number of batches, 0 or more', readAhead);
  const names = new Set<string>();
  for (const config of datasets) {
    checkDataset(config, wrong);
    if (names.has(config.name)) throw wrong('the data', 'data sets of different names', config.name);
    names.add(config.name);
    if (mix === 'sample' && config.batchSize !== datasets[0]!.batchSize) {
      const found = `${datasets[0]!.name} with ${datasets[0]!.batchSize}, ${config.name} with ${config.batchSize}`;
      throw wrong("mix 'sample' puts the pairs of all data sets into one batch", 'one batch size', found);
    }
  }
}

function checkDataset(
  config: DatasetConfig,
  wrong: (what: string, expected: string, found: unknown) => MiniGptError,
): void {
  const { name, batchSize, sampleRatio, crop, caption, shuffleBuffer, holdout } = config;
  const of = (option: string) => `the data set ${name}: ${option}`;
  if (!isWhole(batchSize, 1)) throw wrong(of('batch size'), 'a whole number, 1 or more', batchSize);
  if (!(sampleRatio > 0 && sampleRatio < Infinity)) throw wrong(of('sample ratio'), 'a number above 0', sampleRatio);
  if (!isWhole(shuffleBuffer, 0))
    throw wrong(of('shuffle buffer'), 'a whole number of pairs, 0 or more', shuffleBuffer);
  if (!isWhole(holdout, 0)) throw wrong(of('holdout'), 'a whole number of pairs, 0 or more', holdout);
  if (crop && !(crop.minScale > 0 && crop.minScale <= crop.maxScale && crop.maxScale <= 1)) {
    throw wrong(
      of('crop'),
      'shares of the area, 0 < minScale <= maxScale <= 1',
      `${crop.minScale} to ${crop.maxScale}`,
    );
  }
  if (caption && !isWhole(caption.maxWords, 1))
    throw wrong(of('max words'), 'a whole number, 1 or more', caption.maxWords);
}

function isWhole(value: number, least: number): boolean {
  return Number.isSafeInteger(value) && value >= least;
}
