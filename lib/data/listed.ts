// Data sets that are a list of picture files and texts: every epoch a seeded permutation that all processes share by turns.
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { MiniGptError } from '../errors.js';
import { InputFile } from '../formats/input-file.js';
import { Random } from '../random.js';
import { isBlank } from './captions.js';
import type { DatasetConfig } from './options.js';
import type { Turn } from './pair.js';
import {
  maxPictureBytes,
  otherData,
  type DataSource,
  type Draw,
  type PairStream,
  type Reference,
  type StreamPlace,
} from './source.js';

/** One pair of a list, the texts by the rules. */
export interface ListedPair {
  /** Within the data set. */
  name: string;
  /** Path of the picture's file. */
  picture: string;
  turns: Turn[];
  /** Why it can't be used, where the list tells already. */
  problem?: string;
  /** Where the problem is neither the entry nor its caption: its turns are in no order to learn from. */
  about?: 'turns';
}

/** So many unusable pairs in a row, of a random order, mean that fewer than one in a thousand can be used. */
const mostInRow = 20_000;

/** Why these texts are nothing to learn from, if they aren't. */
export function wrongTurns(turns: Turn[]): string | undefined {
  if (turns.length === 0) return 'has no caption';
  return turns.some(({ answer }) => isBlank(answer)) ? 'has an empty caption' : undefined;
}

const stateRules = z.object({
  pairs: z.int(),
  content: z.string(),
  epoch: z.int().min(0),
  position: z.int().min(0),
  drawn: z.int().min(0),
});

export class ListedSource implements DataSource {
  readonly pairs: number;
  readonly #all: ListedPair[];

  /** Errors: ERR_ARGUMENT (nothing is left beside the pairs kept back). */
  constructor(
    readonly config: DatasetConfig,
    all: ListedPair[],
  ) {
    this.#all = all;
    this.pairs = all.length - config.holdout;
    if (config.holdout > 0 && this.pairs < 1) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `the data set ${config.name}: ${config.holdout} pairs are to be kept for validation, but it has ${all.length}`,
      );
    }
  }

  /** Errors: ERR_ARGUMENT (fewer pairs than a batch on all processes, the state of other data), ERR_FILE_FORMAT (they are, but unusable). */
  async stream(place: StreamPlace): Promise<PairStream> {
    const { name, batchSize, holdout, storage } = this.config;
    const training = this.#all.slice(0, this.pairs);
    const broken = training.filter((pair) => pair.problem !== undefined);
    const least = batchSize * place.worldSize;
    if (training.length - broken.length < least) {
      const kept = holdout ? `, after the ${holdout} kept for validation` : '';
      const some = broken.slice(0, 3).map((pair) => `${pair.name} ${pair.problem}`);
      throw new MiniGptError(
        broken.length ? 'ERR_FILE_FORMAT' : 'ERR_ARGUMENT',
        `the data set ${name} (${storage}): expected at least ${least} usable pairs (a batch of ${batchSize} on each of ` +
          `${place.worldSize} processes), found ${training.length - broken.length}${kept}` +
          (some.length ? `; ${broken.length} are not usable: ${some.join('; ')}` : ''),
      );
    }
    const hash = createHash('sha256');
    for (const { name: pair, turns } of training) hash.update(JSON.stringify([pair, turns]));
    return new ListedStream(this.config, training, place, hash.digest('hex').slice(0, 16));
  }

  async holdout(): Promise<Reference[]> {
    return this.#all.slice(this.pairs).map((pair) => referenceTo(this.config, pair));
  }
}

/** A picture's file, undecoded. Errors: those of InputFile, ERR_IMAGE (larger than any picture). */
export async function readPictureFile(path: string): Promise<Buffer> {
  const file = await InputFile.open(path);
  try {
    if (file.size > maxPictureBytes)
      throw new MiniGptError('ERR_IMAGE', `${path} has ${file.size} bytes; expected at most ${maxPictureBytes}`);
    return await file.read(0, file.size);
  } finally {
    await file.close();
  }
}

function referenceTo(config: DatasetConfig, pair: ListedPair): Reference {
  return {
    name: `${config.name}/${pair.name}`,
    async read() {
      if (pair.problem !== undefined) throw new MiniGptError('ERR_FILE_FORMAT', pair.problem);
      return { picture: await readPictureFile(pair.picture), turns: pair.turns };
    },
  };
}

class ListedStream implements PairStream {
  readonly whole: string;
  /** Pairs that each process takes of an epoch. */
  readonly #share: number;
  #epoch = 0;
  #position = 0;
  #drawn = 0;
  #order: Uint32Array | undefined;
  /** Pairs that were found unusable: not of the state, as they will be found again. */
  readonly #broken = new Set<number>();

  constructor(
    readonly config: DatasetConfig,
    readonly list: ListedPair[],
    readonly place: StreamPlace,
    readonly content: string,
  ) {
    this.whole = `the ${list.length} pairs of ${config.storage}`;
    this.#share = Math.floor(list.length / place.worldSize);
    if (place.state !== undefined) this.#restore(place.state);
  }

  #restore(state: unknown): void {
    const { name } = this.config;
    const parsed = stateRules.safeParse(state);
    if (!parsed.success) throw otherData(name, "a list's state", z.prettifyError(parsed.error).split('\n')[0]!);
    const { pairs, content, epoch, position, drawn } = parsed.data;
    if (pairs !== this.list.length) throw otherData(name, `${pairs} pairs to train on`, String(this.list.length));
    if (content !== this.content)
      throw otherData(name, 'the same pairs in the same order', `others (hash ${this.content}, not ${content})`);
    if (position > this.#share) throw otherData(name, `a place up to ${this.#share}`, String(position));
    [this.#epoch, this.#position, this.#drawn] = [epoch, position, drawn];
  }

  begin(pairs: number): void {
    if (this.#share - this.#position < pairs) this.#nextEpoch();
  }

  #nextEpoch(): void {
    if (this.#position === 0) return;
    this.#epoch++;
    this.#position = 0;
    this.#order = undefined;
  }

  async draw(): Promise<Draw> {
    if (this.#position >= this.#share) this.#nextEpoch();
    const { seed, rank, worldSize } = this.place;
    this.#order ??= new Random(seed, 'order', this.config.name, this.#epoch).permutation(this.list.length);
    const index = this.#order[this.#position++ * worldSize + rank]!;
    return { reference: referenceTo(this.config, this.list[index]!), ordinal: this.#drawn++, index, skipped: [] };
  }

  /** Too few are left for a batch on each process; or none was usable in two epochs' draws, which hold a whole one wherever they begin. */
  isHopeless({ index }: Draw, inRow: number): boolean {
    this.#broken.add(index!);
    const left = this.list.length - this.#broken.size;
    return left < this.config.batchSize * this.place.worldSize || inRow > Math.min(mostInRow, 2 * this.#share);
  }

  state(): unknown {
    const state: z.infer<typeof stateRules> = {
      pairs: this.list.length,
      content: this.content,
      epoch: this.#epoch,
      position: this.#position,
      drawn: this.#drawn,
    };
    return state;
  }
}
