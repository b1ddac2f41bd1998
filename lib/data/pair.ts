// A picture and what is said of it, as a data set gives it.

/** One exchange about the picture. Without a question the run's prompt template asks. */
export interface Turn {
  question?: string;
  answer: string;
}

/** As it lies in the data set: nothing is decoded. */
export interface Pair {
  /** The data set's name in the configuration. */
  dataset: string;
  /** What people find it by: 'laion/00003.tar/000012', 'cc_sbu_align/1047'. */
  name: string;
  /** The picture's file, undecoded. */
  picture: Uint8Array;
  /** One turn, or several of a conversation; text rules (`text_processor`) are applied already. */
  turns: Turn[];
}

/** Ready for the model. `key` is the SHA-256 of file and transform: the same key, the same pixels. */
export interface LoadedPair extends Omit<Pair, 'picture'> {
  key: string;
  /** RGB [height, width, 3], cropped if the transform says so, not yet resampled. Undefined where `features` came from the cache. */
  pixels?: { data: Uint8Array; width: number; height: number };
  /** What the projection reads [imageTokens, projectionInput], from the cache. */
  features?: Float32Array | Uint16Array;
}

/** A sample that could not be used, and why. */
export interface SkippedPair {
  dataset: string;
  name: string;
  reason: string;
}

export interface Batch {
  /** The data set that all pairs are of, or 'mixed'. */
  dataset: string;
  pairs: LoadedPair[];
  /** Passed over while this batch was put together. */
  skipped: SkippedPair[];
}

/** Batches without end. The next ones are read and decoded while the model computes. */
export interface Loader {
  /** Pairs to train on of each data set that is a list; shards are not counted. */
  readonly sizes?: Record<string, number>;
  /** Errors: ERR_FILE_FORMAT (no usable pair in a whole pass over a data set), what reading gives, ERR_CLOSED. */
  next(): Promise<Batch>;
  /** Where the data stands after the batches that next() has given out, as JSON; openLoader goes on from it with the same batches. */
  state(): unknown;
  close(): Promise<void>;
}
