// What the loader is told: the data sets as the configuration describes them, checked, and how they are mixed.
import type { NativeTrainingSample } from '../addon.js';

/** How a data set lies on disk. */
export type DataFormat = 'webdataset' | 'cc_sbu_align' | 'llava' | 'list';

/** The `datasets` section of a configuration, one entry, checked and with its defaults. */
export interface DatasetConfig {
  name: string;
  format: DataFormat;
  /** Shards with brace ranges (`{00000..01255}.tar`), a cc_sbu_align folder, a LLaVA JSON file, a CSV or JSONL list. Absolute. */
  storage: string;
  /** The folder that picture paths of a LLaVA file or a list are relative to. Default: the file's own. */
  images?: string;
  /** Pairs of a batch, on each process. */
  batchSize: number;
  /** Share among the data sets; any positive numbers. */
  sampleRatio: number;
  /** Random resized crop to so much of the picture's area (the first release's transform); undefined: the whole picture, squashed. */
  crop?: { minScale: number; maxScale: number };
  /** `blip_caption` with its options; undefined: captions as they are. */
  caption?: { maxWords: number; prompt: string };
  /** Pairs that a WebDataset's shuffle buffer holds; 0: in the shards' order. */
  shuffleBuffer: number;
  /** Pairs kept from training for validation: the last ones of the list, or of the last shard. */
  holdout: number;
}

export interface LoaderOptions {
  datasets: DatasetConfig[];
  seed: number;
  /** This process among `worldSize`. */
  rank: number;
  worldSize: number;
  /** 'batch': every batch is of one data set, drawn by sampleRatio (today's original); 'sample': every pair is drawn (April 2023). */
  mix: 'batch' | 'sample';
  /** Batches that are read and decoded ahead. */
  readAhead: number;
  /** Pixels of a picture at most. */
  maxPixels?: number;
  /** The cache of features, asked before a picture is decoded. */
  lookup?: (key: string) => Promise<NativeTrainingSample['features'] | undefined>;
  /** From Loader.state(): goes on with the batch after. */
  state?: unknown;
}
