// Batches of training pairs without end, read and decoded while the model computes, in an order that depends on the seed and the data alone.
import { z } from 'zod';
import { faultIn, randomState } from '../checked-state.js';
import { MiniGptError } from '../errors.js';
import { Random } from '../random.js';
import { mapOf } from './in-parallel.js';
import { loadPair } from './load-pair.js';
import { checkLoaderOptions } from './loader-options.js';
import { openSource } from './open-source.js';
import type { DatasetConfig, LoaderOptions } from './options.js';
import type { Batch, LoadedPair, Loader, SkippedPair } from './pair.js';
import { isUnusable, type Draw, type PairStream } from './source.js';

/** Pictures that are read and decoded at once: enough for all threads of sharp, and few of the largest in memory. */
const atOnce = 16;
/** Decoded pixels that wait for the model, beyond which nothing more is read ahead. */
const aheadBytes = 2 ** 30;

const whole = z.int({ error: 'a whole number' });
const stateRules = z.object(
  {
    version: z.literal(1, { error: 'version 1' }),
    seed: whole,
    rank: whole,
    worldSize: whole,
    mix: z.enum(['batch', 'sample'], { error: 'batch or sample' }),
    random: randomState,
    datasets: z.record(z.string(), z.unknown(), { error: 'an object with the state of each data set' }),
  },
  { error: "an object with the data's state" },
);

/**
 * Opens all data sets and begins to read. Each process opens its own loader, and keeps its own state.
 *
 * Errors: ERR_ARGUMENT (options; too few pairs; a state of other data, another seed or other processes), ERR_FILE_NOT_FOUND (storage),
 * ERR_FILE_READ, ERR_FILE_FORMAT.
 */
export async function openLoader(options: LoaderOptions): Promise<Loader> {
  checkLoaderOptions(options);
  const { datasets, seed, rank, worldSize } = options;
  const state = options.state === undefined ? undefined : checkState(options, options.state);
  const streams: Stream[] = [];
  const sizes: Record<string, number> = {};
  for (const config of datasets) {
    const source = await openSource(config);
    const place = { seed, rank, worldSize };
    const pairs = await source.stream(state ? { ...place, state: state.datasets[config.name] } : place);
    streams.push({ config, pairs });
    if (source.pairs !== undefined) sizes[config.name] = source.pairs;
  }
  return new BatchLoader(
    options,
    sizes,
    streams,
    state ? Random.fromState(state.random) : new Random(seed, 'mix', rank),
  );
}

/**
 * The pairs that the data sets keep from training, whole pictures in the data sets' order. Those that can't be used are told to `skip`.
 *
 * Errors: as openLoader.
 */
export async function readHoldout(
  options: LoaderOptions,
  skip?: (skipped: SkippedPair) => void,
): Promise<LoadedPair[]> {
  checkLoaderOptions(options);
  const pairs: LoadedPair[] = [];
  for (const config of options.datasets) {
    if (config.holdout === 0) continue;
    const references = await (await openSource(config)).holdout();
    const loaded = await mapOf(references, atOnce, async (reference): Promise<LoadedPair | SkippedPair> => {
      try {
        return await loadPair(reference, config, options);
      } catch (error) {
        return skippedBy(error, config, reference.name);
      }
    });
    for (const one of loaded) {
      if ('key' in one) pairs.push(one);
      else skip?.(one);
    }
  }
  return pairs;
}

/** Errors: those that are not the sample's own. */
function skippedBy(error: unknown, config: DatasetConfig, name: string): SkippedPair {
  if (!isUnusable(error)) throw error;
  return { dataset: config.name, name, reason: error.message };
}

function checkState(options: LoaderOptions, state: unknown): State {
  const wrong = (what: string) => new MiniGptError('ERR_ARGUMENT', `the data's state cannot be gone on from: ${what}`);
  const parsed = stateRules.safeParse(state);
  if (!parsed.success) throw wrong(faultIn(state, parsed.error));
  for (const key of ['seed', 'rank', 'worldSize', 'mix'] as const) {
    if (parsed.data[key] !== options[key])
      throw wrong(`expected ${key} ${options[key]} as in this run, found ${parsed.data[key]}`);
  }
  const [here, there] = [options.datasets.map(({ name }) => name), Object.keys(parsed.data.datasets)];
  if (here.length !== there.length || here.some((name) => !there.includes(name)))
    throw wrong(`expected the data sets ${here.join(', ')}, found ${there.join(', ') || 'none'}`);
  return parsed.data;
}

interface Stream {
  config: DatasetConfig;
  pairs: PairStream;
}

type State = z.infer<typeof stateRules>;

/** A batch, and where the data stand after it. */
interface Made {
  batch: Batch;
  state: State;
  /** Of its decoded pixels. */
  bytes: number;
}

class BatchLoader implements Loader {
  readonly #options: LoaderOptions;
  readonly #streams: Stream[];
  readonly #random: Random;
  readonly #reading: Promise<void>;
  readonly #ready: Made[] = [];
  #bytes = 0;
  /** After the last batch that was given out. */
  #given: State;
  /** Whether next() waits for a batch. */
  #asked = false;
  #failure: { error: unknown } | undefined;
  #closed = false;
  #waits: (() => void)[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    options: LoaderOptions,
    readonly sizes: Record<string, number>,
    streams: Stream[],
    random: Random,
  ) {
    this.#options = options;
    this.#streams = streams;
    this.#random = random;
    this.#given = this.#place();
    this.#reading = this.#readAhead();
  }

  next(): Promise<Batch> {
    const batch = this.#turn.then(() => this.#take());
    this.#turn = batch.catch(() => {}); // whoever asked is told; who asks next, anew
    return batch;
  }

  state(): unknown {
    return structuredClone(this.#given);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#changed();
    await this.#reading;
    this.#ready.length = 0;
  }

  /** Both sides wait for any change, and look again. */
  #change(): Promise<void> {
    return new Promise((resolve) => this.#waits.push(resolve));
  }

  #changed(): void {
    const waits = this.#waits;
    this.#waits = [];
    for (const resume of waits) resume();
  }

  async #take(): Promise<Batch> {
    for (;;) {
      if (this.#closed) throw new MiniGptError('ERR_CLOSED', 'the loader of training data is closed');
      const made = this.#ready.shift();
      this.#asked = !made && !this.#failure;
      this.#changed();
      if (made) {
        this.#bytes -= made.bytes;
        this.#given = made.state;
        return made.batch;
      }
      if (this.#failure) throw this.#failure.error;
      await this.#change();
    }
  }

  async #readAhead(): Promise<void> {
    while (!this.#closed && !this.#failure) {
      const room = this.#ready.length < this.#options.readAhead && this.#bytes < aheadBytes;
      if (!room && !(this.#asked && this.#ready.length === 0)) {
        await this.#change();
        continue;
      }
      try {
        const made = await this.#make();
        this.#ready.push(made);
        this.#bytes += made.bytes;
      } catch (error) {
        this.#failure = { error };
      }
      this.#changed();
    }
  }

  #place(): State {
    const { seed, rank, worldSize, mix } = this.#options;
    return {
      version: 1,
      seed,
      rank,
      worldSize,
      mix,
      random: this.#random.state as State['random'],
      datasets: Object.fromEntries(this.#streams.map(({ config, pairs }) => [config.name, pairs.state()])),
    };
  }

  async #make(): Promise<Made> {
    const first = this.#pick();
    const mixed = this.#options.mix === 'sample' && this.#streams.length > 1;
    const slots = Array.from({ length: first.config.batchSize }, (_, i) => (mixed && i > 0 ? this.#pick() : first));
    const skipped: SkippedPair[] = [];
    const filled = new Map<Stream, LoadedPair[]>();
    for (const stream of this.#streams) {
      const count = slots.filter((slot) => slot === stream).length;
      if (count) filled.set(stream, await this.#fill(stream, count, skipped));
    }
    const pairs = slots.map((slot) => filled.get(slot)!.shift()!);
    const bytes = pairs.reduce((sum, { pixels }) => sum + (pixels?.data.length ?? 0), 0);
    return { batch: { dataset: mixed ? 'mixed' : first.config.name, pairs, skipped }, state: this.#place(), bytes };
  }

  /** A data set, drawn by the sample ratios. */
  #pick(): Stream {
    const last = this.#streams.at(-1)!;
    if (this.#streams.length === 1) return last;
    let left = this.#random.uniform() * this.#streams.reduce((sum, { config }) => sum + config.sampleRatio, 0);
    return this.#streams.find(({ config }) => (left -= config.sampleRatio) < 0) ?? last;
  }

  /** So many usable pairs: those drawn, in their order, and for each that can't be used one more at the end. */
  async #fill({ config, pairs }: Stream, count: number, skipped: SkippedPair[]): Promise<LoadedPair[]> {
    const usable: LoadedPair[] = [];
    const reasons: string[] = [];
    let inRow = 0;
    let inBatch = 0;
    if (this.#options.mix === 'batch') pairs.begin(count);
    while (usable.length < count) {
      const draws: Draw[] = [];
      while (draws.length < count - usable.length) draws.push(await pairs.draw());
      const loaded = await mapOf(draws, atOnce, (draw) => this.#load(draw, config));
      for (const [i, one] of loaded.entries()) {
        skipped.push(...draws[i]!.skipped);
        if ('key' in one) {
          usable.push(one);
          inRow = 0;
          continue;
        }
        skipped.push(one);
        inRow++;
        inBatch++;
        if (reasons.length < 3) reasons.push(`${one.name}: ${one.reason}`);
        if (pairs.isHopeless(draws[i]!, inRow)) {
          throw new MiniGptError(
            'ERR_FILE_FORMAT',
            `the data set ${config.name}: expected usable pairs for a batch of ${config.batchSize}, found too few of them in ` +
              `${pairs.whole}: ${usable.length}, and ${inBatch} that are not; the first: ${reasons.join('; ')}`,
          );
        }
      }
    }
    return usable;
  }

  async #load(draw: Draw, config: DatasetConfig): Promise<LoadedPair | SkippedPair> {
    if (this.#closed) throw new MiniGptError('ERR_CLOSED', 'the loader of training data is closed');
    const { seed, rank } = this.#options;
    try {
      return await loadPair(
        draw.reference,
        config,
        this.#options,
        new Random(seed, 'crop', config.name, rank, draw.ordinal),
      );
    } catch (error) {
      return skippedBy(error, config, draw.reference.name);
    }
  }
}
