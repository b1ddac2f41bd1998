// Trains the projection of a model: data, schedule, validation, checkpoints and resuming around the native trainer, told as events.
import { z } from 'zod';
import { MiniGptError } from '../errors.js';
import { checkOptions } from '../options.js';
import type { TrainSections } from './config.js';
import type { RunFacts, TrainEvent } from './events.js';
import { alone, type ProcessGroup } from './group.js';
import type { Prepared } from './prepare.js';

export interface TrainOptions {
  /** `run.max_epoch=1`: changes of the configuration, values as in YAML. */
  set?: string[];
  /**
   * Goes on from a checkpoint, a run's folder, or the newest run in a folder; true: in the configuration's output_dir. Default:
   * run.resume_ckpt_path.
   */
  resume?: string | boolean;
  /** The run's folder. Default: a new one in run.output_dir; of a resumed run, the checkpoint's. */
  output?: string;
  /** The processes that train together. Default: this one alone. */
  group?: ProcessGroup;
  /**
   * Ends the run: a checkpoint is written, then the iterator throws ERR_ABORTED. One process stops within a layer; several finish their step
   * first, so that all stop after the same one.
   */
  signal?: AbortSignal;
  /** Told what went wrong without ending the run: a cache of features that cannot be written. */
  onWarning?: (sentence: string) => void;
}

/** What a group must have to be one. */
const groupKeys = {
  rank: 'number',
  size: 'number',
  sum: 'function',
  sumNumbers: 'function',
  close: 'function',
} as const;

const rule = (expected: string, of: z.ZodType) => of.meta({ expected, known: [] });
const trainFields: Record<keyof TrainOptions, z.ZodType> = {
  set: rule('an array of texts, as run.max_epoch=1', z.array(z.string())),
  resume: rule('true, false, or the path of a checkpoint or folder', z.union([z.boolean(), z.string().min(1)])),
  output: rule('the path of a folder', z.string().min(1)),
  group: rule(
    'a group of processes',
    z.custom(
      (value) =>
        typeof value === 'object' &&
        value !== null &&
        Object.entries(groupKeys).every(([key, type]) => typeof (value as Record<string, unknown>)[key] === type),
    ),
  ),
  signal: rule(
    'an AbortSignal',
    z.custom((value) => value instanceof AbortSignal),
  ),
  onWarning: rule(
    'a function',
    z.custom((value) => typeof value === 'function'),
  ),
};
const trainRules = z.object(trainFields);

/** As checkOptions. */
export const checkTrainOptions = (
  options: TrainOptions | undefined,
  of: string,
  spell?: (key: string) => string,
): TrainOptions => checkOptions<TrainOptions>(trainRules, options, of, spell);

/** What a run is, with what its user should know before it begins. */
export interface TrainFacts extends RunFacts {
  /** Sentences: keys of the original without a meaning here, changed keys of a resumed run. */
  notices: string[];
}

/**
 * Trains as a configuration says: the path of a YAML file, or its sections as an object. Nothing happens until the result is iterated or
 * asked for its facts, wrong options included: those reject then. Leaving the loop early writes a checkpoint too.
 *
 * The iterator throws: ERR_ARGUMENT (an option, the configuration, a checkpoint of another run), ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_SHAPE (a
 * projection of another width), ERR_NAN_LOSS (after a checkpoint of the state from before), ERR_ABORTED and ERR_COLLECTIVE (after a
 * checkpoint of the last whole step), ERR_OUT_OF_MEMORY, ERR_FILE_READ (a checkpoint that cannot be written; older ones stay).
 */
export function train(config: string | TrainSections, options?: TrainOptions): TrainRun {
  return new TrainRun(config, options);
}

/** A run. It can be iterated once. */
export class TrainRun implements AsyncIterable<TrainEvent> {
  readonly #config: string | TrainSections;
  readonly #given: TrainOptions | undefined;
  #options: (TrainOptions & { group: ProcessGroup }) | undefined;
  #prepared: Promise<Prepared> | undefined;
  #taken = false;

  /** Use train(). */
  constructor(config: string | TrainSections, options?: TrainOptions) {
    this.#config = config;
    this.#given = options;
  }

  /** Loads the model and the data. Errors: wrong options, and those of preparing, as the iterator throws them. */
  async facts(): Promise<TrainFacts> {
    return (await this.#prepare()).facts;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TrainEvent, void, void> {
    if (this.#taken) throw new MiniGptError('ERR_ARGUMENT', 'a run of training can be iterated once');
    this.#taken = true;
    const prepared = await this.#prepare();
    const { TrainingLoop } = await import('./loop.js');
    yield* new TrainingLoop(prepared, this.#checked()).events();
  }

  /** Frees what facts() has loaded, where the run is not iterated; harmless otherwise. */
  async close(): Promise<void> {
    if (this.#taken || !this.#prepared) return;
    this.#taken = true;
    await (await this.#prepared.catch(() => undefined))?.close(); // whoever asked for the facts has been told
  }

  /** Error: ERR_ARGUMENT. */
  #checked(): TrainOptions & { group: ProcessGroup } {
    if (!this.#options) {
      const options = checkTrainOptions(this.#given, 'train()');
      this.#options = { ...options, group: options.group ?? alone() };
    }
    return this.#options;
  }

  async #prepare(): Promise<Prepared> {
    const options = this.#checked();
    // what only training needs is loaded when it begins
    return (this.#prepared ??= import('./prepare.js').then(({ prepare }) => prepare(this.#config, options)));
  }
}
