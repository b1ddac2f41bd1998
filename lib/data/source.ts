// What every kind of data set gives the loader: references to pairs without end, in an order that its state can be written down for.
import { MiniGptError } from '../errors.js';
import type { DatasetConfig } from './options.js';
import type { SkippedPair, Turn } from './pair.js';

/** Of a picture's file; a larger one is no picture. */
export const maxPictureBytes = 256 * 2 ** 20;

/** A pair that has not been read yet. */
export interface Reference {
  /** As in Pair. */
  name: string;
  /** The picture's file and the texts by the rules. Errors: see `isUnusable`; all others end the run. */
  read(): Promise<{ picture: Uint8Array; turns: Turn[] }>;
}

export interface Draw {
  reference: Reference;
  /** How many this stream has drawn before, in the whole run. */
  ordinal: number;
  /** Which pair of the data set's list, where it has one. */
  index?: number;
  /** What was passed over to find it: shards. */
  skipped: SkippedPair[];
}

/** References without end. One draw at a time. */
export interface PairStream {
  /** Told before the pairs of one batch are drawn: a data set of an epoch too short for them begins the next. */
  begin(pairs: number): void;
  /** Errors: ERR_FILE_FORMAT (nothing to draw from anywhere). */
  draw(): Promise<Draw>;
  /**
   * Told of a draw that can't be used, `inRow` of them by now. Whether that is the end: what is left can't give a batch, or there would
   * have been a usable one by now.
   */
  isHopeless(draw: Draw, inRow: number): boolean;
  /** What was tried, for the error's sentence: 'all 300 pairs of LIST'. */
  readonly whole: string;
  /** The place after the last draw, as JSON. */
  state(): unknown;
}

/** Where a stream of one process begins. */
export interface StreamPlace {
  seed: number;
  rank: number;
  worldSize: number;
  /** From PairStream.state(). Errors when it is of other data: ERR_ARGUMENT. */
  state?: unknown;
}

export interface DataSource {
  readonly config: DatasetConfig;
  /** Pairs to train on, where they are counted already. */
  readonly pairs?: number;
  stream(place: StreamPlace): Promise<PairStream>;
  /** The pairs kept from training, in order. */
  holdout(): Promise<Reference[]>;
}

/** Whether the error is one sample's own fault, which is passed over. A machine without memory or open files is none. */
export function isUnusable(error: unknown): error is MiniGptError {
  if (!(error instanceof MiniGptError)) return false;
  const system = (error.cause as NodeJS.ErrnoException | undefined)?.code;
  if (system !== undefined && ['EMFILE', 'ENFILE', 'ENOMEM'].includes(system)) return false;
  return ['ERR_IMAGE', 'ERR_FILE_FORMAT', 'ERR_FILE_NOT_FOUND', 'ERR_FILE_READ', 'ERR_FILE_CHANGED'].includes(
    error.code,
  );
}

/** ERR_ARGUMENT: a state that these data can't go on from. */
export function otherData(dataset: string, expected: string, found: string): MiniGptError {
  return new MiniGptError(
    'ERR_ARGUMENT',
    `the data's state does not fit the data set ${dataset}: expected ${expected}, found ${found}; ` +
      'was the data changed since the state was written?',
  );
}
